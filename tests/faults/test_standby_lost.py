"""What a standby needs is gone for good: the log that was kept for it, or the disks of the archive that it followed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psycopg
import pytest

from tests import peer
from tests.faults.process import wait_for
from tests.peer import RawObject
from tests.restoring import check_of, given_back, rows
from tests.synthetic import ct_study
from tests.twins import Node, Twins

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
QUICK = {"PACS_SETTLE_S": "0", "PACS_TIER_INTERVAL_S": "2"}


def _stored(node: Node, seed: int) -> list[RawObject]:
    raw = [RawObject.of(each) for each in ct_study(seed, 3)]
    assert set(peer.store(node.dev.dicom_port, raw)) == {0x0000}
    return raw


def _worker_of(node: Node) -> int:
    """The worker among the processes of a `pacs dev`."""
    assert node.dev.process is not None
    pid = node.dev.process.pid
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        if b"worker\0run" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError("there is no worker")


def test_a_standby_whose_log_is_kept_no_more_copies_anew(twin_folder: Path) -> None:
    with Twins.paired(twin_folder, **QUICK) as twins:
        first, second = twins.archive, twins.standby
        known = _stored(first, 1)
        wait_for(twins.is_level, "the standby does not get all", timeout_s=90)
        second.dev.stop()
        conninfo = f"host={first.dev.data / 'run'} dbname=pacs user=pacs"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            kept = connection.execute("SELECT setting::int FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")
            segments = int((kept.fetchone() or [0])[0]) // 16 + 2  # [MiB]
            assert 2 < segments < 1000
            connection.execute("SET wal_init_zero = off")  # new segments are holes
            known += _stored(first, 2)
            for _segment in range(segments):
                connection.execute("CREATE TABLE filler AS SELECT 1 AS one")
                connection.execute("DROP TABLE filler")
                connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
            status = connection.execute("SELECT wal_status, active FROM pg_replication_slots").fetchall()
        assert status == [("lost", False)]
        wait_for(lambda: check_of(first.dev, "standby")[0] == "critical", "nobody tells of the lost log", timeout_s=120)
        assert "`pacs standby follow` copies anew" in check_of(first.dev, "standby")[1]
        known += _stored(first, 3)
        second.pacs("standby", "follow", "--yes")
        second.start_as_standby()
        wait_for(twins.is_level, "the standby does not get all", timeout_s=90)
        assert check_of(first.dev, "standby")[0] == "ok"
        first.power_off()
        assert second.promoted("--primary-is-off")["not_here"] == []
        assert given_back(second.dev, known) == {raw.sop_instance_uid: raw.dataset for raw in known}


def test_what_only_the_lost_archive_had_is_given_up_by_word_listed_and_healed_by_a_sending(twin_folder: Path) -> None:
    with Twins.paired(twin_folder, **QUICK) as twins:
        first, second = twins.archive, twins.standby
        safe = _stored(first, 1)
        wait_for(twins.is_level, "the standby does not get all", timeout_s=90)
        os.kill(_worker_of(first), signal.SIGSTOP)  # nothing is shipped any more; the log follows by itself
        lost = _stored(first, 2)
        counted = "SELECT count(*) AS number FROM object"
        wait_for(lambda: rows(second.dev, counted)[0]["number"] == 6, "the log does not follow", timeout_s=60)
        first.power_off()
        promoted = second.promoted("--primary-is-off")
        assert sum(row["objects"] for row in promoted["not_here"]) == 3
        refused = second.dev.pacs("standby", "leave", check=False)
        assert refused.returncode != 0 and "3 objects are nowhere but at the standby" in refused.stderr
        second.pacs("standby", "release")
        second.pacs("standby", "leave", "--lost")
        assert second.status()["twin"] is None
        missing = json.loads(second.pacs("restore", "missing", "--json"))
        study = peer.study_uid_of(lost[0])
        assert [(row["study_instance_uid"], row["objects"]) for row in missing] == [(study, 3)]
        assert given_back(second.dev, safe).keys() == {raw.sop_instance_uid for raw in safe}
        assert set(peer.store(second.dev.dicom_port, lost)) == {0x0000}
        assert json.loads(second.pacs("restore", "missing", "--json")) == []
        assert given_back(second.dev, lost) == {raw.sop_instance_uid: raw.dataset for raw in lost}
