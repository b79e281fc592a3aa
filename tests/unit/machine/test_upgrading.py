"""`pacs upgrade` on a node whose slots are files: what is refused, what is told, and the ways back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pacs.errors import TryAgainLater, UsageError
from pacs.machine.records import Member, SystemRecord, write_system
from pacs.machine.slots import GrubEnvironment, Slot, Slots, encoded
from pacs.machine.upgrading import Upgrading, alone, describe, retry
from pacs.model.upgrade import System
from pacs.storage.lineage import LineageFiles
from pacs.storage.upgrade_record import CALLED_OFF, PASSED, ROLLED_BACK, Kept, Record

_OLD, _NEW = System("1.0.0", 3, 17), System("2.0.0", 4, 17)
_RECORD = Record("one", "a", "b", _OLD, _NEW, "2026-01-01T00:00:00+00:00")


@pytest.fixture
def work(tmp_path: Path) -> Upgrading:
    data = tmp_path / "data"
    (data / "config").mkdir(parents=True)
    (tmp_path / "grubenv").write_bytes(encoded({"slot": "a", "try": ""}))
    slots = Slots(Slot("a", "/dev/none", "uuid-3", 1), Slot("b", "/dev/none", "uuid-4", 1))
    memory = tmp_path / "volumes.json"
    return Upgrading(data, data / "postgresql", _OLD, slots, GrubEnvironment(tmp_path / "grubenv"), memory)


def _never() -> None:
    raise AssertionError("a restart")


def test_one_that_waits_is_called_off(work: Upgrading) -> None:
    work.files.put_record(replace(_RECORD))
    work.environment.write(**{"try": "b"})
    with pytest.raises(UsageError, match="waits for a restart"):
        work.require_idle()
    assert "Called off" in work.back(_never)
    assert work.environment.once == ""
    record = work.files.record()
    assert record is not None
    assert record.outcome == CALLED_OFF
    work.require_idle()
    with pytest.raises(UsageError, match="no upgrade to go back from"):
        work.back(_never)


def test_going_back_makes_the_old_slot_the_default_and_restarts(work: Upgrading) -> None:
    on_new = replace(work, here=_NEW, slots=Slots(work.slots.idle, work.slots.running))
    work.environment.write(slot="b")
    work.files.put_record(replace(_RECORD, began_at="then", outcome=PASSED, ended_at="2026-01-01T01:00:00+00:00"))
    work.files.put_kept(Kept("one", _OLD, "2026-01-01T00:30:00+00:00"))
    asked: list[bool] = []
    assert "restarts now" in on_new.back(lambda: asked.append(True))
    assert (asked, work.environment.default) == ([True], "a")
    record = work.files.record()
    assert record is not None
    assert record.is_open
    assert record.back_at


def test_without_the_copy_there_is_no_way_back_over_a_schema(work: Upgrading) -> None:
    on_new = replace(work, slots=Slots(work.slots.idle, work.slots.running))
    work.environment.write(slot="b")
    work.files.put_record(replace(_RECORD, began_at="then", outcome=PASSED, ended_at="2026-01-01T01:00:00+00:00"))
    with pytest.raises(UsageError, match="Restore a backup"):
        on_new.back(_never)
    assert work.environment.default == "b"


def test_a_fenced_node_and_one_without_volumes_are_left_alone(work: Upgrading) -> None:
    LineageFiles(work.data).fence("another one has taken over", 2)
    with pytest.raises(UsageError, match="fenced"):
        work.require_idle()
    write_system(work.memory, SystemRecord("id", (Member("v", ("state",), "", 0),), folders=True))
    with pytest.raises(UsageError, match="without volumes"):
        work._require_movable()


def test_a_repository_on_the_system_disk_would_be_left_behind(work: Upgrading) -> None:
    folder = work.data / "config" / "repositories"
    folder.mkdir()
    text = 'place = "/srv/pacs/backup/repository"\nkind = "local"\nvolume_id = "1"\n'
    (folder / "outside.toml").write_text(text)
    with pytest.raises(UsageError, match="repository on the system disk"):
        work._require_movable()


def test_a_replaced_disk_is_tried_again_by_a_persons_word(work: Upgrading) -> None:
    with pytest.raises(UsageError, match="No replaced system disk"):
        retry(work.files)
    work.files.put_record(replace(_RECORD, from_slot="", to_slot="", outcome=ROLLED_BACK, ended_at="x"))
    assert "next start" in retry(work.files)


def test_what_is_told(work: Upgrading) -> None:
    assert describe(None, _OLD, work.slots, work.files)[-1] == "no upgrade yet"
    record = replace(_RECORD)
    assert describe(record, _OLD, None, work.files)[-1] == "  Version 2.0.0 waits for a restart."
    record.began_at = "then"
    assert describe(record, _NEW, None, work.files)[-1].startswith("  Version 2.0.0 is on trial: when its selftest")
    record.outcome, record.ended_at, record.why = ROLLED_BACK, "2026-01-01T01:00:00+00:00", "it hung"
    assert describe(record, _OLD, None, work.files)[-1] == "  rolled back 2026-01-01T01:00:00+00:00: it hung"


def test_one_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path / "lock"), pytest.raises(TryAgainLater, match="at work already"), alone(tmp_path / "lock"):
        pass
