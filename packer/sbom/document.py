"""`python -m packer.sbom.document DISK TARGET`: the list of parts of a finished system disk (SBOM), as CycloneDX 1.6.

What is in it: every Debian package with its source package and licences, every Python wheel with its digest and
licence. It is made from the disk and not from the build's intentions, is written into the disk itself as well
(/usr/local/share/pacs/sbom.cdx.json), and is the same for the same disk. What to do with it: docs/reference/sbom.md.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from packageurl import PackageURL

from packer.errors import BuildError
from packer.ova.export import NAME, Release
from packer.rootfs import Rootfs, as_raw, open_rootfs
from packer.sbom.licences import is_expression, is_spdx
from packer.sbom.packages import DebianPackage, Wheel, debian_packages, wheels

IN_IMAGE = "/usr/local/share/pacs/sbom.cdx.json"
DISTRIBUTION = "debian-13"
_NAMESPACE = uuid.UUID("0a0dd8e6-93ac-5f0f-a3f0-35b3a5a0e9d4")


def sbom(root: Rootfs, release: Release) -> str:
    """The document of an opened disk. Raise BuildError if it isn't valid by CycloneDX's own schema."""
    from cyclonedx.validation.json import JsonStrictValidator  # here, as it imports grammars of addresses for seconds

    parts = [*map(_of_package, debian_packages(root)), *map(_of_wheel, wheels(root))]
    bom = Bom(components=parts)
    content = "\n".join(f"{part.bom_ref.value} {[str(each.content) for each in part.hashes]}" for part in parts)
    bom.serial_number = uuid.uuid5(_NAMESPACE, f"{release.stem} {release.epoch_s}\n{content}")
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(release.epoch_s, datetime.UTC)
    bom.metadata.component = Component(
        name=NAME, version=release.version, type=ComponentType.OPERATING_SYSTEM, bom_ref=release.stem
    )
    bom.register_dependency(bom.metadata.component, parts)
    text: str = JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise BuildError(f"The list of parts is not valid CycloneDX: {error}.", "Report this as a defect.")
    return text


def _of_package(package: DebianPackage) -> Component:
    qualifiers = {"arch": package.architecture, "distro": DISTRIBUTION}
    if (package.source, package.source_version) != (package.name, package.version):
        # As scanners have it: Debian's tracker knows source packages only.
        qualifiers["upstream"] = f"{package.source}@{package.source_version}"
    url = PackageURL("deb", "debian", package.name, package.version, qualifiers)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(url),
        purl=url,
        description=package.summary,
        supplier=OrganizationalEntity(name=package.maintainer) if package.maintainer else None,
        licenses=_licences(package.licences),
        properties=[
            Property(name="debian:source", value=package.source),
            Property(name="debian:source-version", value=package.source_version),
        ],
    )


def _of_wheel(wheel: Wheel) -> Component:
    url = PackageURL("pypi", None, wheel.name.lower().replace("_", "-"), wheel.version)
    return Component(
        name=wheel.name,
        version=wheel.version,
        type=ComponentType.APPLICATION if wheel.name == "pacs" else ComponentType.LIBRARY,
        bom_ref=str(url),
        purl=url,
        description=wheel.summary,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)],
        licenses=_licences([wheel.licence] if wheel.licence else []),
    )


def _licences(names: Iterable[str]) -> list[License]:
    named = list(names)
    if len(named) == 1 and not is_spdx(named[0]) and is_expression(named[0]):
        return [LicenseExpression(named[0])]
    return [DisjunctiveLicense(id=name) if is_spdx(name) else DisjunctiveLicense(name=name) for name in named]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the list of parts of a disk; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m packer.sbom.document", description=__doc__)
    parser.add_argument("disk", type=Path, help="the .qcow2, .vhdx or any disk that qemu-img reads")
    parser.add_argument("target", type=Path, help="the JSON file")
    options = parser.parse_args(arguments)
    try:
        with as_raw(options.disk) as raw, open_rootfs(raw) as root:
            version = next(wheel.version for wheel in wheels(root) if wheel.name == "pacs")
            built = datetime.datetime.fromisoformat(root.text("/etc/pacs/built").strip())
            options.target.write_text(sbom(root, Release(version, int(built.timestamp()))), "utf-8")
    except (BuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
