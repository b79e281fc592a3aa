"""The same disk gives the same bytes: VMDK and OVA, signed too, whenever and wherever they are made; and the VHDX holds
what the disk holds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from packer.ova.export import Exported, Release, export
from packer.ova.package import sha256_of
from tests.ovf.conftest import DATA_DISKS, EPOCH_S, make_ova, read_members

RELEASE = Release("1.2.3", EPOCH_S)


def test_the_same_disk_gives_the_same_ova(system: Path, tmp_path: Path) -> None:
    """Also of a copy of the disk that qemu-img laid out another way, in another folder."""
    again = tmp_path / "again.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "-o", "cluster_size=1M", system, again], check=True)
    first, second = make_ova(system, tmp_path / "one"), make_ova(again, tmp_path / "two")
    assert read_members(first) == read_members(second)
    assert sha256_of(first) == sha256_of(second)


def test_another_disk_gives_another(system: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.qcow2"
    subprocess.run(["cp", system, other], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 7 40M 64k", other], check=True, capture_output=True)
    assert sha256_of(make_ova(system, tmp_path / "one")) != sha256_of(make_ova(other, tmp_path / "two"))


@pytest.fixture(scope="module")
def exported(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    return export(system, folder, RELEASE, folder / "log", DATA_DISKS)


@pytest.mark.parametrize("virtual_format", ["vhdx", "qcow2"])
def test_every_form_of_the_disk_holds_the_same(virtual_format: str, exported: Exported, system: Path) -> None:
    form = {"vhdx": exported.vhdx, "qcow2": exported.qcow2}[virtual_format]
    assert form.name == f"pacs-appliance-1.2.3.{virtual_format}"
    subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", virtual_format, system, form], check=True)


def test_the_checksums_are_of_every_file(exported: Exported) -> None:
    named = {line.split("  ")[1] for line in exported.sums.read_text().splitlines()}
    assert named == {path.name for path in exported.files} - {"SHA256SUMS"}
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=exported.sums.parent, check=True)


def test_the_vhdx_is_one_that_hyper_v_takes(exported: Exported) -> None:
    """MS-VHDX: the signature, and a length in whole MiB; dynamic, in blocks of 1 MiB."""
    content = exported.vhdx.read_bytes()
    assert content[:8] == b"vhdxfile"
    assert len(content) % (1 << 20) == 0
    # In the metadata, the file's parameters: block size, then "leave allocated" and "has parent", both off.
    metadata = content.index(b"metadata", 256 * 1024)
    parameters = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")  # caa16737-fa36-4d43-b3b6-33f0aa44e76b
    entry = content.index(parameters, metadata)
    offset = int.from_bytes(content[entry + 16 : entry + 20], "little")
    block_bytes, flags = (int.from_bytes(content[metadata + offset + at :][:4], "little") for at in (0, 4))
    assert (block_bytes, flags) == (1 << 20, 0)
