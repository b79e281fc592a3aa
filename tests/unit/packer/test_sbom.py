"""The list of parts, of a folder that looks like a finished disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from packer.errors import BuildError
from packer.ova.export import Release
from packer.rootfs import Rootfs
from packer.sbom.document import sbom
from packer.sbom.licences import licences
from packer.sbom.packages import SITE_PACKAGES, STATUS, WHEELS, debian_packages, wheels

RELEASE = Release("1.2.3", 1_700_000_000)
_STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.41-12
Maintainer: GNU Libc Maintainers <x@example.org>
Description: GNU C Library: Shared libraries
 More words.

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: python3-yaml
Status: install ok installed
Architecture: amd64
Source: pyyaml (6.0.2-1)
Version: 6.0.2-1+b2
"""
_DEP5 = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: LGPL-2.1+ and Expat, and GPL-2

Files: b
License:
 GPL-3+ with autoconf exception

License: Expat
 words: License: none
"""


@pytest.fixture
def root(tmp_path: Path) -> Rootfs:
    def put(path: str, text: str) -> None:
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    put(STATUS, _STATUS)
    put("/usr/share/doc/libc6/copyright", _DEP5)
    (tmp_path / "usr/share/doc/python3-yaml").symlink_to("libc6")
    put(
        f"{SITE_PACKAGES}/Foo_Bar-1.0.dist-info/METADATA",
        "Name: Foo.Bar\nVersion: 1.0\nLicense-Expression: MIT OR 0BSD",
    )
    put(f"{SITE_PACKAGES}/pacs-1.2.3.dist-info/METADATA", "Name: pacs\nVersion: 1.2.3\nSummary: It\n\nwords")
    put(WHEELS, f"{'1' * 64}  foo_bar-1.0-py3-none-any.whl\n{'2' * 64}  pacs-1.2.3-py3-none-any.whl\n")
    return Rootfs(tmp_path / "none", tmp_path)


def test_what_dpkg_has_installed_with_its_source(root: Rootfs) -> None:
    found = {package.name: package for package in debian_packages(root)}
    assert found.keys() == {"libc6", "python3-yaml"}
    libc = found["libc6"]
    assert (libc.version, libc.source, libc.source_version) == ("2.41-12", "glibc", "2.41-12")
    yaml = found["python3-yaml"]
    assert (yaml.version, yaml.source, yaml.source_version) == ("6.0.2-1+b2", "pyyaml", "6.0.2-1")
    assert libc.licences == yaml.licences == ("GPL-2.0-only", "GPL-3.0-or-later", "LGPL-2.1-or-later", "MIT")


def test_each_wheel_has_the_digest_of_its_file(root: Rootfs) -> None:
    assert [(wheel.name, wheel.sha256[0]) for wheel in wheels(root)] == [("Foo.Bar", "1"), ("pacs", "2")]
    (root.files / WHEELS.lstrip("/")).write_text("")
    with pytest.raises(BuildError, match="came from no wheel"):
        wheels(root)


def test_the_document(root: Rootfs) -> None:
    text = sbom(root, RELEASE)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    parts = {part["name"]: part for part in document["components"]}
    assert parts.keys() == {"libc6", "python3-yaml", "Foo.Bar", "pacs"}
    assert parts["libc6"]["purl"] == "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13&upstream=glibc%402.41-12"
    assert parts["Foo.Bar"]["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    assert parts["Foo.Bar"]["licenses"] == [{"expression": "MIT OR 0BSD"}]
    assert document["metadata"]["component"]["version"] == "1.2.3"
    assert document["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")


def test_the_same_disk_gives_the_same_document_and_another_another(root: Rootfs) -> None:
    first = sbom(root, RELEASE)
    assert sbom(root, RELEASE) == first
    status = root.files / STATUS.lstrip("/")
    status.write_text(status.read_text().replace("2.41-12", "2.41-13"))
    assert json.loads(sbom(root, RELEASE))["serialNumber"] != json.loads(first)["serialNumber"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("License: GPL-2.0+ | Artistic", ["Artistic-1.0-Perl", "GPL-2.0-or-later"]),
        ("License: BSD-3-clause OR GPL-2", ["BSD-3-Clause", "GPL-2.0-only"]),
        ("License: Custom-regex", ["Custom-regex"]),
        ("License: GPLv3+", ["GPL-3.0-or-later"]),
    ],
)
def test_short_names(said: str, expected: list[str]) -> None:
    assert licences(f"Format: x\n\nFiles: *\n{said}\n") == expected


def test_a_file_in_words() -> None:
    assert licences("See /usr/share/common-licenses/GPL-2.") == ["text of GPL-2"]
    assert licences("All rights reserved.") == ["see /usr/share/doc/PACKAGE/copyright"]
