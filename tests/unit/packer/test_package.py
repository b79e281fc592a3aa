"""The tar, the manifest and the box."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from packer.errors import BuildError
from packer.ova.box import GIB, metadata, write_box
from packer.ova.package import checksums, manifest, member, sha256_of, tar_format, write_ova

EPOCH_S = 1_700_000_000


@pytest.fixture
def disks(tmp_path: Path) -> list[Path]:
    made = []
    for name in ("b.vmdk", "a.vmdk"):
        path = tmp_path / name
        path.write_bytes(name.encode() * 1000)
        made.append(path)
    return made


def test_members_stand_in_the_order_importers_want(tmp_path: Path, disks: list[Path]) -> None:
    ova = tmp_path / "x.ova"
    write_ova(ova, "x.ovf", "<Envelope/>", disks, EPOCH_S)
    with tarfile.open(ova) as tar:
        members = tar.getmembers()
        assert [entry.name for entry in members] == ["x.ovf", "x.mf", "b.vmdk", "a.vmdk"]
        assert {(entry.uid, entry.gid, entry.mode, entry.mtime) for entry in members} == {(0, 0, 0o644, EPOCH_S)}
        packed = tar.extractfile("a.vmdk")
        assert packed is not None
        assert packed.read() == disks[1].read_bytes()


def test_every_header_is_ustar_and_none_is_pax(tmp_path: Path, disks: list[Path]) -> None:
    ova = tmp_path / "x.ova"
    write_ova(ova, "x.ovf", "<Envelope/>", disks, EPOCH_S)
    raw = ova.read_bytes()
    assert raw[257:265] == b"ustar\x0000"
    assert raw[156:157] == b"0"
    assert b"PaxHeader" not in raw
    assert b"././@LongLink" not in raw


def test_the_manifest_names_everything_but_itself(tmp_path: Path, disks: list[Path]) -> None:
    ova = tmp_path / "x.ova"
    write_ova(ova, "x.ovf", "<Envelope/>", disks, EPOCH_S)
    with tarfile.open(ova) as tar:
        stream = tar.extractfile("x.mf")
        assert stream is not None
        lines = stream.read().decode().splitlines()
    wanted = [("x.ovf", hashlib.sha256(b"<Envelope/>").hexdigest()), *((disk.name, sha256_of(disk)) for disk in disks)]
    assert lines == [f"SHA256({name})= {digest}" for name, digest in wanted]


def test_manifest_form_is_exact() -> None:
    assert manifest([("a.ovf", "ab" * 32)]) == f"SHA256(a.ovf)= {'ab' * 32}\n"


def test_the_same_input_makes_the_same_ova(tmp_path: Path, disks: list[Path]) -> None:
    for name in ("1.ova", "2.ova"):
        write_ova(tmp_path / name, "x.ovf", "<Envelope/>", disks, EPOCH_S)
    assert (tmp_path / "1.ova").read_bytes() == (tmp_path / "2.ova").read_bytes()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b.vmdk", "ü.vmdk", "a b.vmdk", "-x.vmdk"])
def test_a_name_that_an_importer_would_trip_over_is_refused(name: str) -> None:
    with pytest.raises(BuildError):
        member(name, 1, 1)


def test_a_disk_beyond_ustar_gets_another_format() -> None:
    assert tar_format([8 * GIB - 1]) == tarfile.USTAR_FORMAT
    assert tar_format([1, 8 * GIB]) == tarfile.GNU_FORMAT


def test_checksums_are_what_sha256sum_checks(tmp_path: Path, disks: list[Path]) -> None:
    (tmp_path / "SHA256SUMS").write_text(checksums((disk.name, sha256_of(disk)) for disk in disks))
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    disks[0].write_bytes(b"changed")
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 1


def test_box(tmp_path: Path) -> None:
    image = tmp_path / "system.qcow2"
    image.write_bytes(b"QFI\xfb" + bytes(5000))
    for name in ("1.box", "2.box"):
        write_box(tmp_path / name, image, 12 * GIB + 1, EPOCH_S)
    assert (tmp_path / "1.box").read_bytes() == (tmp_path / "2.box").read_bytes()
    with tarfile.open(tmp_path / "1.box", "r:gz") as tar:
        assert tar.getnames() == ["metadata.json", "Vagrantfile", "box.img"]
        stream = tar.extractfile("box.img")
        assert stream is not None
        assert stream.read() == image.read_bytes()


def test_the_virtual_size_of_a_box_is_rounded_up() -> None:
    assert json.loads(metadata(12 * GIB))["virtual_size"] == 12
    assert json.loads(metadata(12 * GIB + 1))["virtual_size"] == 13
    assert json.loads(metadata(1))["provider"] == "libvirt"
