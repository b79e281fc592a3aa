"""The drill: a restore that is done while the archive lives, and compared with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.storage.names import repository_path
from tests.peer import RawObject
from tests.restoring import Archive, check_of, living_archive, rows
from tests.sftp_server import SftpServer
from tests.synthetic import ct_study
from tests.workstation import Workstation

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def living(short_folder: Path) -> Iterator[Archive]:
    """An archive with three studies and a recovery point."""
    objects = [RawObject.of(each) for seed in (1, 2, 3) for each in ct_study(seed, 3)]
    with living_archive(short_folder, objects) as made:
        yield made


def test_a_drill_proves_that_a_restore_works(living: Archive) -> None:
    done = living.dev.pacs("drill", "run", "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["known"], outcome["sampled"], outcome["differ"], outcome["problems"]) == (9, 9, 0, [])
    assert outcome["brought_back"] == 9
    severity, message = check_of(living.dev, "drill")
    assert severity == "ok"
    assert message.startswith("Last proven restore: ") and "9 objects known, 9 sampled, 0 differ" in message
    metrics = living.dev.pacs("check", "--metrics").stdout
    assert 'pacs_drill_objects{what="known"} 9' in metrics and "pacs_proven_restore_timestamp_seconds" in metrics
    kept = {path.name for path in (living.dev.data / "drill").iterdir()}
    assert kept == {"cluster", "lock"}, "keys and images are not left there"
    assert not list((living.dev.data / "drill").rglob("postmaster.pid"))
    # The living archive went on, and its log was not mixed with the drill's.
    assert living.dev.pacs("drill", "run").returncode == 0, "into the cluster that is kept"
    assert "9 objects known" in living.dev.pacs("drill", "status").stdout


@pytest.mark.long
def test_a_drill_from_a_workstation(living: Archive, ssh_server: SftpServer, tmp_path: Path) -> None:
    workstation = Workstation(tmp_path, ssh_server)
    workstation.add("north", living.dev.data)
    workstation.know()
    done = workstation.fleet("drill")
    assert (done.returncode, done.stdout) == (0, "done    north: 9 objects known, 9 sampled, 0 differ\n"), done.stderr


def test_a_drill_finds_what_differs(living: Archive) -> None:
    row = rows(living.dev, "SELECT sha256, sop_instance_uid FROM object ORDER BY object_key LIMIT 1")[0]
    file = living.repository / repository_path(bytes(row["sha256"]))
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = living.dev.pacs("drill", "run", check=False)
    assert done.returncode == 8
    assert "1 differ" in done.stdout and row["sop_instance_uid"] in done.stdout
    severity, message = check_of(living.dev, "drill")
    assert severity == "critical" and "the last drill found faults" in message and "Last proven restore" in message
    file.write_bytes(good)
    rows(living.dev, "UPDATE copy SET state = 'good' WHERE state <> 'good' RETURNING 1 AS done")


def test_a_drill_that_cannot_run_is_a_failure(living: Archive) -> None:
    away = living.repository.with_name("away")
    living.repository.rename(away)
    done = living.dev.pacs("drill", "run", check=False)
    assert done.returncode != 0
    severity, message = check_of(living.dev, "drill")
    assert severity == "critical" and "could not be done" in message
    away.rename(living.repository)
    assert living.dev.pacs("drill", "run").returncode == 0
    assert check_of(living.dev, "drill")[0] == "ok"
