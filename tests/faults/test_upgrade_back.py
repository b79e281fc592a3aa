"""An upgrade that changes the schema and is rolled back: what was stored while it was on trial is found again.

The real instance, killed where the machine would restart; between its starts machine/settling does what
pacs-upgrade.service does on an appliance.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from pacs.machine.settling import Boot, Settling, this_system
from pacs.machine.trial import give_up
from pacs.model.upgrade import System
from pacs.storage.lineage import LineageFiles
from pacs.storage.upgrade_record import ROLLED_BACK, Record, UpgradeFiles
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject, get, store, study_uid_of
from tests.synthetic import ct_study

_SETTINGS = {"PACS_SETTLE_S": "0", "PACS_ORPHAN_AGE_S": "1"}


def _settle(dev: Dev, here: System, boot: Boot) -> bool:
    return Settling(dev.data, dev.data / "postgresql" / "main", here, boot).settle()


def _migrate_further(dev: Dev, schema: int) -> None:
    """What a later version's migration leaves: this version would refuse the database."""
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        connection.execute("ALTER TABLE object ADD COLUMN later integer")
        connection.execute("INSERT INTO schema_migration (number, name) VALUES (%s, 'later.sql')", (schema,))


def test_what_was_stored_on_trial_is_found_again(new_dev: Callable[..., Dev]) -> None:
    old = this_system()
    new = System("99.0.0", old.schema + 1, old.postgresql)
    dev = new_dev(**_SETTINGS).start()
    first, second = ([RawObject.of(each) for each in ct_study(seed, 3)] for seed in (1, 2))
    assert store(dev.dicom_port, first) == [0] * 3
    wait_for(lambda: LineageFiles(dev.data).state(), "the lineage has not begun")
    dev.kill_all()
    assert not _settle(dev, old, Boot("a", "a"))
    files = UpgradeFiles(dev.data)
    files.put_record(Record("one", "a", "b", old, new, "2026-01-01T00:00:00+00:00"))

    assert _settle(dev, new, Boot("b", "a", "", "one"))
    dev.start()
    _migrate_further(dev, new.schema)
    assert store(dev.dicom_port, second) == [0] * 3
    dev.kill_all()
    give_up(files, "the selftest failed")

    assert not _settle(dev, old, Boot("a", "a"))
    dev.start()
    notice = LineageFiles(dev.data).reverted()
    assert notice is not None
    assert "before the upgrade to 99.0.0" in notice.findings[0]
    wait_for(lambda: (found := LineageFiles(dev.data).reverted()) and found.reconciled_at, "not put right", 90)
    raw = [*first, *second]
    offered = [(each.sop_class_uid, each.transfer_syntax_uid) for each in raw]
    came = get(dev.dicom_port, {study_uid_of(each) for each in raw}, offered)
    assert {uid: each.dataset for uid, each in came.items()} == {each.sop_instance_uid: each.dataset for each in raw}
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        newest = connection.execute("SELECT max(number) FROM schema_migration").fetchone()
        timeline = connection.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").fetchone()
    assert newest == (old.schema,)
    assert timeline == ("00000002",)
    record = files.record()
    assert record is not None
    assert (record.outcome, files.failed.is_dir()) == (ROLLED_BACK, True)
    assert "was rolled back: the selftest failed" in dev.pacs("check", check=False).stdout
