"""The end of a stream-optimised VMDK, on small disks that qemu-img makes here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from packer.errors import BuildError
from packer.ova.streamvmdk import (
    SECTOR_BYTES,
    content_id,
    convert,
    end_of_data,
    finish,
    grain_offsets,
    read_header,
    with_content_id,
    write_empty,
)

MIB = 1024 * 1024


def _raw(path: Path, size_bytes: int, data: bytes = b"", offset: int = 0) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size_bytes)
        stream.seek(offset)
        stream.write(data)
    return path


def _as_qemu_img_leaves_it(raw: Path, vmdk: Path) -> Path:
    options = ["-o", "subformat=streamOptimized,adapter_type=lsilogic"]
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", *options, raw, vmdk], check=True)
    return vmdk


def _stands_right(vmdk: Path) -> None:
    """The last sector is the end-of-stream marker, and the data ends right before it."""
    with vmdk.open("rb") as stream:
        header = read_header(stream)
        end = end_of_data(stream, header, [each for each in grain_offsets(stream, header) if each])
        assert vmdk.stat().st_size == end + SECTOR_BYTES
        stream.seek(end)
        assert stream.read() == bytes(SECTOR_BYTES)


def _identical(raw: Path, vmdk: Path) -> None:
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "vmdk", raw, vmdk], check=True)
    subprocess.run(["qemu-img", "check", "-q", "-f", "vmdk", vmdk], check=True)


@pytest.mark.parametrize(
    ("size_mib", "data_mib", "offset_mib"), [(64, 1, 0), (64, 1, 63), (4096, 3, 1000), (100, 0, 0), (64, 64, 0)]
)
def test_finish_leaves_one_end_marker_and_the_same_disk(
    tmp_path: Path, size_mib: int, data_mib: int, offset_mib: int
) -> None:
    raw = _raw(tmp_path / "disk.raw", size_mib * MIB, os.urandom(data_mib * MIB), offset_mib * MIB)
    vmdk = _as_qemu_img_leaves_it(raw, tmp_path / "disk.vmdk")
    used_bytes = finish(vmdk, "seed")
    _stands_right(vmdk)
    _identical(raw, vmdk)
    assert used_bytes == data_mib * MIB


def test_finish_makes_an_empty_disk_longer(tmp_path: Path) -> None:
    """qemu-img writes no end marker at all behind the tables of an empty disk: the file has to grow."""
    vmdk = _as_qemu_img_leaves_it(_raw(tmp_path / "empty.raw", 64 * MIB), tmp_path / "empty.vmdk")
    before = vmdk.stat().st_size
    finish(vmdk, "seed")
    assert vmdk.stat().st_size == before + SECTOR_BYTES


def test_finish_again_changes_nothing(tmp_path: Path) -> None:
    raw = _raw(tmp_path / "disk.raw", 64 * MIB, os.urandom(MIB))
    vmdk = _as_qemu_img_leaves_it(raw, tmp_path / "disk.vmdk")
    finish(vmdk, "seed")
    once = vmdk.read_bytes()
    finish(vmdk, "seed")
    assert vmdk.read_bytes() == once


def test_the_same_disk_and_seed_make_the_same_file(tmp_path: Path) -> None:
    raw = _raw(tmp_path / "disk.raw", 64 * MIB, os.urandom(MIB), 5 * MIB)
    made = []
    for seed, folder in [("1.0", "a"), ("1.0", "b"), ("1.1", "c")]:
        (tmp_path / folder).mkdir()
        vmdk = tmp_path / folder / "disk.vmdk"
        convert(raw, "raw", vmdk, seed, tmp_path / "log")
        made.append(vmdk.read_bytes())
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_content_id_is_never_the_one_that_means_no_parent() -> None:
    ids = {content_id(str(number)) for number in range(200)}
    assert len(ids) == 200
    assert all(len(word) == 8 and int(word, 16) < 0xFFFFFFFE for word in ids)


@pytest.mark.parametrize("old", ["0", "1a2b3c", "12345678"])
def test_a_content_id_of_any_length_is_replaced(old: str) -> None:
    descriptor = f"# Disk\nCID={old}\nparentCID=ffffffff\n".encode().ljust(1024, b"\0")
    wanted = b"# Disk\nCID=89abcdef\nparentCID=ffffffff\n".ljust(1024, b"\0")
    assert with_content_id(descriptor, "89abcdef") == wanted


def test_write_empty(tmp_path: Path) -> None:
    vmdk = tmp_path / "state.vmdk"
    write_empty(vmdk, 8 * 1024 * MIB, "seed", tmp_path / "log")
    _stands_right(vmdk)
    assert vmdk.stat().st_size < 2 * MIB
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".raw"] == []
    assert b'"state.vmdk"' in vmdk.read_bytes()[:4096]


@pytest.mark.parametrize("content", [b"", b"KDMV", b"KDMV" + bytes(600), b"QFI\xfb" + bytes(600)])
def test_what_is_no_such_vmdk_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(content)
    with pytest.raises(BuildError):
        finish(path, "seed")


def test_a_monolithic_vmdk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", path, "64M"], check=True)
    with pytest.raises(BuildError, match="stream-optimised"):
        finish(path, "seed")
