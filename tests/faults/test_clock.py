"""A clock that was wrong by a year, and was put right: backups go on, and what is newest is newest."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pacs import clock
from pacs.backup.log_shipping import State
from pacs.backup.points import PointMaker, Target, newest_point, points
from pacs.backup.repositories import open_volume
from pacs.backup.running import is_due, run_backup
from pacs.errors import BackupError
from tests.fix_cluster import Site

YEAR = timedelta(days=365)


@pytest.mark.parametrize("wrong_by", [YEAR, -YEAR])
def test_the_newest_point_is_the_last_that_was_made(
    site: Site, monkeypatch: pytest.MonkeyPatch, wrong_by: timedelta
) -> None:
    repository = site.add_folder("usb" if wrong_by > timedelta(0) else "other")
    run_backup(site.data, repository)
    volume, right = open_volume(repository, site.keyring), clock.now
    target = Target(repository.name, volume, lambda _key: False)
    made = []
    for shift in (timedelta(0), wrong_by, timedelta(0)):
        monkeypatch.setattr(clock, "now", lambda shift=shift: right() + shift)
        maker = PointMaker(site.database, site.spool, site.keyring, "appliance", every_s=0)
        site.note(f"at {shift}")
        maker.run([target])
        site.end_segment()
        site.ship(repository.name)
        site.tidy()
        made += [point for _name, point in maker.run([target])]
    first, wrong, last = made
    assert abs(wrong.at - last.at - wrong_by) < timedelta(hours=1)
    assert points(volume, site.keyring) == [first, wrong, last]
    assert newest_point(volume, site.keyring) == last
    assert "at 0:00:00" in site.restore(repository.name, point=wrong).notes()
    volume.close()
    site.forget(repository.name)


#: Of Debian's package libfaketime.
_FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["incr", "full"])
def test_a_backup_of_the_year_to_come(site: Site, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """PostgreSQL's clock is what a backup is named after."""
    repository = site.add_folder(f"year-{kind}")
    run_backup(site.data, repository)
    site.cluster.stop()
    monkeypatch.setenv("LD_PRELOAD", os.environ.get("PACS_FAKETIME", _FAKETIME))
    monkeypatch.setenv("FAKETIME", "+365d")
    site.cluster.start()
    assert run_backup(site.data, repository, kind).backup.finished_at > clock.now() + YEAR / 2
    site.cluster.stop()
    monkeypatch.undo()
    site.cluster.start()
    if kind == "incr":
        assert run_backup(site.data, repository).backup.kind == "full"
        assert run_backup(site.data, repository).backup.kind == "incr"
        site.note("afterwards")
        site.end_segment()
        site.ship(repository.name)
        assert "afterwards" in site.restore(repository.name).notes()
    else:
        with pytest.raises(BackupError, match="a clock was wrong.*another place"):
            run_backup(site.data, repository)
    site.forget(repository.name)


def test_a_backup_is_due_after_a_clock_was_a_year_ahead() -> None:
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def state(**known: Any) -> State:
        return State(label="x", is_dropping=False, **known)

    assert is_due(state(backup_at=(now + YEAR).isoformat()), now)
    assert not is_due(state(backup_at=(now - timedelta(hours=1)).isoformat()), now)
