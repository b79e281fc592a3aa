"""What a finished disk is made of: Debian's packages by dpkg's own records, Python's by what pip left beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packer.errors import BuildError
from packer.rootfs import Rootfs
from packer.sbom.licences import licences

STATUS = "/var/lib/dpkg/status"
SITE_PACKAGES = "/opt/pacs/venv/lib/python3.13/site-packages"
WHEELS = "/opt/pacs/wheels.sha256"
_SOURCE = re.compile(r"(\S+)(?: \(([^)]+)\))?")
_REMEDY = "Report this as a defect: the disk is not as the roles leave it."


@dataclass(frozen=True)
class DebianPackage:
    """One installed package, and the source package that Debian's security tracker knows it by."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str
    maintainer: str
    summary: str
    licences: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    """One Python package of the service's own environment, and the SHA-256 of the wheel that it was installed from."""

    name: str
    version: str
    sha256: str
    summary: str
    licence: str


def debian_packages(root: Rootfs) -> list[DebianPackage]:
    """Every package that dpkg has installed, by name."""
    found = []
    for stanza in _stanzas(root.text(STATUS)):
        if not stanza.get("Status", "").endswith(" installed"):
            continue
        name, version = stanza["Package"], stanza["Version"]
        source = _SOURCE.fullmatch(stanza.get("Source", name))
        if not source:
            raise BuildError(f"dpkg's record of {name} has an odd source.", _REMEDY)
        found.append(
            DebianPackage(
                name, version, stanza["Architecture"], source[1], source[2] or version,
                stanza.get("Maintainer", ""), stanza.get("Description", ""), _licences(root, name),
            )
        )  # fmt: skip
    return sorted(found, key=lambda package: (package.name, package.architecture))


def wheels(root: Rootfs) -> list[Wheel]:
    """Every wheel of the service's environment, by name."""
    if not (place := root.where(SITE_PACKAGES)).is_dir():
        return []  # a build of another playbook
    digests = {}
    for line in root.text(WHEELS).splitlines():
        digest, file_name = line.split()
        digests[_known_as(*file_name.lstrip("*").split("-")[:2])] = digest
    found = []
    for folder in sorted(place.glob("*.dist-info")):
        told = HeaderParser().parsestr((folder / "METADATA").read_text("utf-8"))
        name, version = str(told["Name"]), str(told["Version"])
        if (known := _known_as(name, version)) not in digests:
            raise BuildError(f"{name} {version} came from no wheel that {WHEELS} lists.", _REMEDY)
        found.append(Wheel(name, version, digests[known], str(told["Summary"] or ""), _licence(told.items())))
    return sorted(found, key=lambda wheel: wheel.name.lower())


def _stanzas(status: str) -> Iterator[dict[str, str]]:
    """Fields of each package; of a field with several lines the first."""
    for block in status.split("\n\n"):
        if block.strip():
            lines = [line for line in block.splitlines() if line and not line[0].isspace()]
            yield {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _licences(root: Rootfs, name: str) -> tuple[str, ...]:
    try:
        file: Path = root.where(f"/usr/share/doc/{name}/copyright")
        return tuple(licences(file.read_text("utf-8", "replace")))
    except OSError:
        return ()


def _licence(fields: list[tuple[str, str]]) -> str:
    """An SPDX expression (PEP 639), else what the older fields say."""
    by_name: dict[str, list[str]] = {}
    for name, value in fields:
        by_name.setdefault(name, []).append(value)
    for name in ("License-Expression", "License"):
        if (said := by_name.get(name, [""])[0].strip()) and "\n" not in said and said != "UNKNOWN":
            return said
    classes = [value.split(" :: ")[-1] for value in by_name.get("Classifier", []) if value.startswith("License ::")]
    return " and ".join(classes)


def _known_as(name: str, version: str) -> str:
    """As wheels' file names and metadata both can be compared (packaging's normalised names)."""
    return f"{re.sub(r'[-_.]+', '-', name).lower()} {version}"
