"""LUKS headers as cryptsetup makes them, on files and loop devices; to open one takes dm-crypt, and so a virtual
machine: tests/image/test_encryption.py."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from pacs.backup.master_key import MasterKey
from pacs.machine import encryption
from tests.integration.machine.test_disks import (  # noqa: F401 (fixtures)
    Rig,
    loop_devices_work,
    rig,
)

pytestmark = pytest.mark.skipif(not shutil.which("cryptsetup"), reason="needs cryptsetup")
_SIZE_BYTES = 64 << 20


@pytest.fixture
def volume(tmp_path: Path) -> tuple[str, str, MasterKey]:
    """An encrypted volume in a file; its own key and its sheet's."""
    disk, own, sheet = tmp_path / "disk", encryption.new_key(), MasterKey.make()
    disk.touch()
    os.truncate(disk, _SIZE_BYTES)
    encryption.make(str(disk), "pacs-tier1", str(uuid.uuid4()), own, sheet)
    return str(disk), own, sheet


def test_a_volume_is_opened_by_its_own_key_and_the_sheet_and_by_nothing_else(
    volume: tuple[str, str, MasterKey],
) -> None:
    disk, own, sheet = volume
    slots = encryption.slots(disk)
    assert (len(slots.own), len(slots.sheet), slots.tpm, slots.others) == (1, 1, (), ())
    assert slots.sheet_id == sheet.key_id
    assert encryption.fits(disk, own)
    assert encryption.fits(disk, sheet.text), "the words on paper, as cryptsetup on any Linux takes them"
    before = hashlib.sha256(Path(disk).read_bytes()).hexdigest()
    assert not encryption.fits(disk, MasterKey.make().text)
    assert not encryption.fits(disk, encryption.new_key())
    assert hashlib.sha256(Path(disk).read_bytes()).hexdigest() == before


def test_a_new_sheet_takes_the_place_of_the_old_one_also_after_being_cut_short(
    volume: tuple[str, str, MasterKey], tmp_path: Path
) -> None:
    disk, own, old = volume
    new = MasterKey.make()
    # As if cut short after the new slot: two sheets open it, none is lost.
    words = tmp_path / "words"
    words.write_text(new.text)
    subprocess.run(["cryptsetup", "luksAddKey", "--batch-mode", "--key-file", "-", disk, words], input=own.encode(),
                   check=True)  # fmt: skip
    encryption.add_sheet(disk, own, new)
    assert encryption.fits(disk, new.text)
    assert encryption.fits(disk, own)
    assert not encryption.fits(disk, old.text)
    again = encryption.slots(disk)
    assert again.sheet_id == new.key_id
    encryption.add_sheet(disk, own, new)
    assert encryption.slots(disk) == again, "done once, not each time"


def test_a_lost_own_key_is_made_anew_by_the_sheet(volume: tuple[str, str, MasterKey]) -> None:
    """As after the loss of the state disk: the sheet opens the others, and the new state volume gets keys to them."""
    disk, lost, sheet = volume
    new = encryption.new_key()
    encryption.add_own(disk, sheet.text, new)
    assert encryption.fits(disk, new)
    assert encryption.fits(disk, sheet.text)
    assert not encryption.fits(disk, lost)
    slots = encryption.slots(disk)
    assert (len(slots.own), len(slots.sheet), slots.others) == (1, 1, ())


def test_a_lost_header_is_put_back_from_its_copy(volume: tuple[str, str, MasterKey], tmp_path: Path) -> None:
    disk, own, _ = volume
    headers = tmp_path / "headers"
    encryption.keep_header(disk, "an-id", headers)
    copy = encryption.header_copy(headers, "an-id")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.stat().st_size <= encryption.OFFSET_BYTES
    with open(disk, "r+b") as file:
        file.write(b"\0" * encryption.OFFSET_BYTES)
    assert subprocess.run(["cryptsetup", "isLuks", disk], check=False).returncode != 0
    restore = ["cryptsetup", "luksHeaderRestore", "--batch-mode", "--header-backup-file", copy, disk]
    subprocess.run(restore, check=True)
    assert encryption.fits(disk, own)
    encryption.keep_header(disk, "an-id", headers)
    assert [each.name for each in headers.iterdir()] == ["an-id.luks"]


@pytest.mark.skipif(not loop_devices_work(), reason="needs root and loop devices")
def test_locked_volumes_stop_the_start_and_nothing_is_claimed_or_written(rig: Rig) -> None:  # noqa: F811
    rig.plug("locked", 1500)
    rig.plug("blank", 1500)
    locked = rig.plugged["locked"]
    encryption.make(locked, "pacs-state", str(uuid.uuid4()), encryption.new_key(), MasterKey.make())
    before = {name: hashlib.sha256((rig.folder / name).read_bytes()).hexdigest() for name in rig.plugged}
    found = rig.step()
    assert not found["ready"]
    assert len(found["problems"]) == 1
    assert locked in found["problems"][0]
    assert "sudo pacs machine unlock" in found["problems"][0]
    assert [path for path, _ in found["offered"]] == [rig.plugged["blank"]]
    assert {name: hashlib.sha256((rig.folder / name).read_bytes()).hexdigest() for name in rig.plugged} == before
