"""An OVA of small disks, made the way the build makes it; or a real one, named in PACS_OVA."""

from __future__ import annotations

import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from packer.ova.export import DataDisk, Release, export_ova, virtual_size_bytes
from packer.ova.signature import Signer

MIB = 1024 * 1024
DATA_DISKS = (
    DataDisk("state", 64 * MIB, "state"),
    DataDisk("tier1", 80 * MIB, "images & more"),
    DataDisk("tier2", 96 * MIB, "images"),
)


EPOCH_S = 1_700_000_000


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system disk with a little on it: no system, but all that the exporter reads."""
    folder = tmp_path_factory.mktemp("system")
    raw, made = folder / "system.raw", folder / "system.qcow2"
    with raw.open("wb") as stream:
        stream.truncate(50 * MIB)
        stream.write(random.Random(1).randbytes(2 * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made], check=True)
    return made


def make_ova(system: Path, folder: Path, signer: Signer | None = None) -> Path:
    """An OVA of small disks."""
    folder.mkdir(exist_ok=True)
    release = Release("1.2.3", EPOCH_S)
    return export_ova(system, virtual_size_bytes(system), folder, release, folder / "log", DATA_DISKS, signer)


@pytest.fixture(scope="session")
def ova(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OVA under test."""
    if named := os.environ.get("PACS_OVA"):
        return Path(named)
    return make_ova(system, tmp_path_factory.mktemp("ova"))


@pytest.fixture(scope="session")
def members(ova: Path) -> dict[str, bytes]:
    """What is in the OVA, in the order of the tar."""
    return read_members(ova)


def read_members(ova: Path) -> dict[str, bytes]:
    """Name and content of every member of a tar, in its order."""
    contents: dict[str, bytes] = {}
    with tarfile.open(ova) as tar:
        for entry in tar:
            stream = tar.extractfile(entry)
            assert stream is not None
            contents[entry.name] = stream.read()
    return contents
