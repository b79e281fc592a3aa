"""The disk of the database fills up: new objects are refused before PostgreSQL is hurt, all else goes on, and the state
clears itself. On real file systems (tmpfs)."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pacs import clock
from pacs.archive.room import READING_S, StateRoom
from pacs.errors import VolumeFull
from tests import peer
from tests.faults.aftermath import assert_nothing_lost
from tests.faults.process import postmaster_pid, wait_for
from tests.faults.sender import Account
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_study

OUT_OF_RESOURCES = 0xA700
MIB = 1 << 20


def _raw(seed: int, count: int = 1) -> list[RawObject]:
    return [RawObject.of(made) for made in ct_study(seed, count)]


@pytest.fixture
def disk(short_folder: Path) -> Iterator[Callable[[str], Path]]:
    """Makes small file systems."""
    made: list[Path] = []

    def make(size: str) -> Path:
        root = short_folder / f"disk{uuid.uuid4().hex[:6]}"
        root.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(root)]
        mounted = subprocess.run(words, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
        made.append(root)
        return root

    yield make
    for root in made:
        subprocess.run(["umount", "--lazy", str(root)], check=False)


def _free_bytes(root: Path) -> int:
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


def _fill(root: Path, leave_bytes: int) -> Path:
    """Take all but leave_bytes of a file system."""
    path = root / "filled"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _free_bytes(root) - leave_bytes)
    return path


def _dev(new_dev: Callable[..., Dev], root: Path, short_folder: Path, **environment: str) -> Dev:
    """An instance whose state is on a small disk of its own, and its tiers on others."""
    tiers = short_folder / f"tiers{uuid.uuid4().hex[:6]}"
    dev = new_dev(PACS_TIER1=f"{tiers}/1", PACS_TIER2=f"{tiers}/2", PACS_ORPHAN_AGE_S="0", **environment)
    dev.data = root / "data"
    return dev.start()


def _send(dev: Dev, account: Account, raw: list[RawObject]) -> list[int | None]:
    statuses = peer.store(dev.dicom_port, raw)
    for each, status in zip(raw, statuses, strict=True):
        account.sent[each.sop_instance_uid] = each
        account.note(each, status)
    return statuses


def test_objects_are_refused_while_the_databases_room_is_short_and_all_else_goes_on(
    new_dev: Callable[..., Dev], disk: Callable[[str], Path], short_folder: Path
) -> None:
    root = disk("400m")
    dev, account = _dev(new_dev, root, short_folder), Account()
    first = _raw(1, 3)
    assert _send(dev, account, first) == [0x0000] * 3
    postmaster = postmaster_pid(dev)

    filled = _fill(root, 60 * MIB)  # the reserve is a quarter of the disk
    wait_for(lambda: peer.store(dev.dicom_port, _raw(2)) == [OUT_OF_RESOURCES], "objects are taken on")
    assert peer.store(dev.dicom_port, _raw(2, 5)) == [OUT_OF_RESOURCES] * 5
    assert _send(dev, account, first) == [OUT_OF_RESOURCES] * 3
    taken = peer.get(
        dev.dicom_port, {peer.study_uid_of(first[0])}, [(r.sop_class_uid, r.transfer_syntax_uid) for r in first]
    )
    assert {uid: raw.dataset for uid, raw in taken.items()} == {raw.sop_instance_uid: raw.dataset for raw in first}
    assert dev.pacs("device", "add", "ct1", "--ae-title", "CT1", "--host", "192.0.2.1", "--port", "104").returncode == 0
    assert '"192.0.2.1"' in dev.pacs("device", "list", "--json").stdout
    assert dev.pacs("study", "list").returncode == 0
    checked = dev.pacs("check", check=False)
    assert checked.returncode == 2
    assert "docs/operate/disk-full.md" in checked.stdout
    assert not list((Path(dev.environment["PACS_TIER1"]) / "incoming").iterdir())
    assert dev.log().count("new objects are refused") == 1

    filled.unlink()
    wait_for(lambda: _send(dev, account, _raw(2)) == [0x0000], "objects are not taken again")
    assert "the database's log alone may take 1.1 GB" in dev.pacs("check", check=False).stdout
    assert postmaster_pid(dev) == postmaster
    assert "PANIC" not in (dev.data / "postgresql.log").read_text()
    assert_nothing_lost(dev, account)


def _write_log(dev: Dev) -> None:
    """Have PostgreSQL write more log than there are segments for."""
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs", autocommit=True) as connection:
        for _ in range(500):
            connection.execute("SELECT pg_logical_emit_message(false, 'test', repeat('0123456789', 100000))")


def test_a_disk_filled_to_the_last_byte_by_somebody_else_loses_nothing(
    new_dev: Callable[..., Dev], disk: Callable[[str], Path], short_folder: Path
) -> None:
    """What the reserve is for: without it PostgreSQL ends. It comes back by itself, with all that was promised."""
    root = disk("400m")
    dev, account = _dev(new_dev, root, short_folder, PACS_STATE_RESERVE_BYTES="0"), Account()
    assert _send(dev, account, _raw(1, 3)) == [0x0000] * 3
    filled = _fill(root, 0)
    with pytest.raises(psycopg.OperationalError):  # the connection is gone: PostgreSQL has ended all of them
        _write_log(dev)
    assert peer.store(dev.dicom_port, _raw(3)) != [0x0000]
    filled.unlink()
    wait_for(lambda: _send(dev, account, _raw(2)) == [0x0000], "objects are not taken again", 60)
    assert_nothing_lost(dev, account)


def test_it_does_not_go_back_and_forth(disk: Callable[[str], Path]) -> None:
    root = disk("100m")
    reserve = 20 * MIB

    def taken(leave_bytes: int) -> bool:
        (root / "filled").unlink(missing_ok=True)
        _fill(root, leave_bytes)
        room._read_again_s = 0  # its reading is over
        try:
            room.require()
        except VolumeFull as error:
            assert (error.status, error.http) == (OUT_OF_RESOURCES, 507)
            return False
        return True

    room = StateRoom(root, reserve)
    assert taken(reserve + MIB)
    assert not taken(reserve - MIB)
    assert not taken(reserve + MIB), "not before a tenth more is free"
    assert taken(reserve + 3 * MIB)
    assert taken(reserve + MIB), "and then down to the reserve again"


def test_asking_at_each_object_costs_no_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now_s, real = [], 1000.0, os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: asked.append(path) or real(path))
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
    room = StateRoom(tmp_path, 0)
    for _ in range(1000):
        room.require()
    assert len(asked) == 1
    now_s += READING_S
    room.require()
    room.require()
    assert len(asked) == 2
