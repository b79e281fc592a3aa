"""An OVA of small disks, made the way the build makes it; or a real one, named in PACS_OVA."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from packer.ova.export import DataDisk, Release, export_ova, virtual_size_bytes

MIB = 1024 * 1024
DATA_DISKS = (
    DataDisk("state", 64 * MIB, "state"),
    DataDisk("tier1", 80 * MIB, "images & more"),
    DataDisk("tier2", 96 * MIB, "images"),
)


@pytest.fixture(scope="session")
def ova(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OVA under test."""
    if named := os.environ.get("PACS_OVA"):
        return Path(named)
    folder = tmp_path_factory.mktemp("ova")
    raw, system = folder / "system.raw", folder / "system.qcow2"
    with raw.open("wb") as stream:
        stream.truncate(50 * MIB)
        stream.write(os.urandom(2 * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, system], check=True)
    return export_ova(
        system, virtual_size_bytes(system), folder, Release("1.2.3", 1_700_000_000), folder / "log", DATA_DISKS
    )


@pytest.fixture(scope="session")
def members(ova: Path) -> dict[str, bytes]:
    """What is in the OVA, in the order of the tar."""
    contents: dict[str, bytes] = {}
    with tarfile.open(ova) as tar:
        for entry in tar:
            stream = tar.extractfile(entry)
            assert stream is not None
            contents[entry.name] = stream.read()
    return contents
