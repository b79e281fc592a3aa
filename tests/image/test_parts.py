"""The list of parts (SBOM) of the delivered disk, held against the disk by other means than made it; and two builds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.image.filesystem import RootFilesystem

_IN_IMAGE = "/usr/local/share/pacs/sbom.cdx.json"
_SITE_PACKAGES = "/opt/pacs/venv/lib/python3.13/site-packages"
_REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def text(root: RootFilesystem) -> str:
    return root.read(_IN_IMAGE).decode()


@pytest.fixture(scope="module")
def parts(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)["components"]
    return found


def test_it_is_valid_and_the_same_as_beside_the_ova(text: str, ova: Path) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    beside = ova.with_suffix(".cdx.json")
    assert not beside.exists() or beside.read_text("utf-8") == text


def test_every_debian_package_is_in_it_and_nothing_else(
    root: RootFilesystem, parts: list[dict[str, Any]], tmp_path: Path
) -> None:
    """dpkg's own reader says what is installed."""
    folder = root.extract("/var/lib/dpkg", tmp_path)
    command = ["dpkg-query", f"--admindir={folder}", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\\n"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    installed = {tuple(line.split()[1:]) for line in said if line.startswith("installed ")}
    assert len(installed) > 200
    assert {(part["name"], part["version"]) for part in parts if part["purl"].startswith("pkg:deb/")} == installed


def test_every_wheel_is_in_it_with_the_digest_of_the_lock(root: RootFilesystem, parts: list[dict[str, Any]]) -> None:
    installed = {name for name in root.names(_SITE_PACKAGES) if name.endswith(".dist-info")}
    wheels = [part for part in parts if part["purl"].startswith("pkg:pypi/")]
    assert len(wheels) == len(installed) > 20
    lock = (_REPOSITORY / "requirements/service.txt").read_text()
    for part in wheels:
        digest = part["hashes"][0]["content"]
        assert part["name"] == "pacs" or f"sha256:{digest}" in lock, part["name"]


def test_what_it_says_of_licences(parts: list[dict[str, Any]]) -> None:
    without = {part["name"] for part in parts if not part.get("licenses")}
    assert without <= {"pacs"}


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_two_builds_of_the_same_inputs_hold_the_same_files(ova: Path, tmp_path: Path) -> None:
    """The build under test, and PACS_OTHER_BUILD (a disk or a .tree) of the same commit: without it one is made now,
    with a base disk of its own."""
    first, second = ova.with_suffix(".tree"), os.environ.get("PACS_OTHER_BUILD")
    if second is None:
        command = [sys.executable, "-m", "packer.build", "--build", tmp_path / "build", "--dist", tmp_path / "dist"]
        subprocess.run([*command, "--cache", tmp_path / "cache"], cwd=_REPOSITORY, check=True)
        (made,) = (tmp_path / "dist").glob("*.tree")
        second = str(made)
    answer = subprocess.run(
        [sys.executable, "-m", "packer.compare", first, second], cwd=_REPOSITORY, capture_output=True, text=True
    )
    print(answer.stdout)
    assert answer.returncode == 0, answer.stdout + answer.stderr
