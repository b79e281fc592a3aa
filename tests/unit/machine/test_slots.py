"""GRUB's variables as GRUB writes them, and which slot is which."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from packer.base.bootloader import environment_block
from pacs.errors import UsageError
from pacs.machine.commands import MachineError
from pacs.machine.slots import GrubEnvironment, pick


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "grubenv"
    path.write_bytes(environment_block(slot="a", **{"try": ""}))
    return path


def test_variables_are_changed_where_they_are(file: Path) -> None:
    """In place: GRUB has the file's blocks, and another file of the same name would have others."""
    before = file.stat()
    environment = GrubEnvironment(file)
    assert (environment.default, environment.once) == ("a", "")
    environment.write(**{"try": "b"})
    assert (environment.default, environment.once) == ("a", "b")
    environment.write(slot="b", **{"try": ""})
    assert (environment.default, environment.once) == ("b", "")
    after = file.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, 1024)


def test_what_is_written_changes_in_the_first_sector_only(file: Path) -> None:
    tail = file.read_bytes()[512:]
    GrubEnvironment(file).write(slot="b", **{"try": "a"})
    assert file.read_bytes()[512:] == tail == b"#" * 512


@pytest.mark.skipif(not shutil.which("grub-editenv"), reason="GRUB's own tool is not here")
def test_grub_reads_what_we_write(file: Path) -> None:
    GrubEnvironment(file).write(slot="b", **{"try": "a"})
    told = subprocess.run(["grub-editenv", file, "list"], capture_output=True, text=True, check=True).stdout
    assert set(told.split()) == {"slot=b", "try=a"}


@pytest.mark.parametrize("content", [b"", b"slot=a\n", b"# GRUB Environment Block\nslot=a\n"])
def test_what_grub_would_not_take_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(MachineError, match="does not hold GRUB's variables"):
        GrubEnvironment(file).write(slot="b")
    assert file.read_bytes() == content


def test_a_system_disk_without_them_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="Replace the system disk"):
        GrubEnvironment(tmp_path / "none").read()


def test_a_value_that_would_break_the_block_is_refused(file: Path) -> None:
    with pytest.raises(MachineError):
        GrubEnvironment(file).write(slot="b\ntry=a")


def _rows(*mounted: str, names: tuple[str, ...] = ("root-a", "root-b")) -> list[dict[str, Any]]:
    disks = [{"path": "/dev/sda", "pkname": None, "partlabel": None, "partuuid": None, "size": 100}]
    parts = [
        {
            "path": f"/dev/sda{number}", "pkname": "sda", "partlabel": name, "partuuid": f"UUID-{number}",
            "size": 50, "mountpoints": [place for place in ["/"] if name in mounted],
        }
        for number, name in enumerate(names, start=3)
    ]  # fmt: skip
    other = {"path": "/dev/sdb3", "pkname": "sdb", "partlabel": "root-b", "partuuid": "x", "size": 9, "mountpoints": []}
    return [other, *disks, *parts]


def test_the_slots_are_those_of_the_disk_that_runs() -> None:
    found = pick(_rows("root-b"))
    assert (found.running.name, found.running.device) == ("b", "/dev/sda4")
    assert (found.idle.name, found.idle.device, found.idle.partition_uuid) == ("a", "/dev/sda3", "uuid-3")


@pytest.mark.parametrize("rows", [_rows(), _rows("root-a", names=("root-a",)), _rows("data", names=("data", "root-b"))])
def test_a_machine_without_two_slots_is_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="Replace the system disk"):
        pick(rows)


def test_a_mounted_idle_slot_is_left_alone() -> None:
    rows = _rows("root-a")
    rows[-1]["mountpoints"] = ["/mnt"]
    with pytest.raises(UsageError, match="is mounted"):
        pick(rows)
