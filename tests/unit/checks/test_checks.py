"""Each check tells well from ill; a check that fails is critical and takes no other down."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

from pacs import clock
from pacs.archive.volume_places import Given
from pacs.backup.log_shipping import ShippedLog
from pacs.backup.log_spool import LogSpool
from pacs.backup.repositories import Repository
from pacs.backup.repository_changes import RepositoryChanges
from pacs.checks import backup, commitments, copies, devices
from pacs.checks import log as log_check
from pacs.checks.check import Result, Subject, run_all, worst
from pacs.checks.registry import CHECKS
from pacs.cli.instance import Instance
from pacs.index import commitments as commitment_rows
from pacs.index import refusals
from pacs.index.refusals import Refusal, RefusalKind
from pacs.index.runs import record_run


def severity(result: Result) -> str:
    assert result.message
    assert result.hint or result.severity == "ok", "what is not well says what to do"
    return result.severity


def test_a_check_that_fails_is_critical_and_takes_no_other_down() -> None:
    def broken(_subject: Subject) -> Result:
        raise ZeroDivisionError("Secret^Patient")

    def fine(_subject: Subject) -> Result:
        return Result("fine", "ok", "well")

    results = run_all(None, {"broken": broken, "fine": fine, "broken too": broken})  # type: ignore[arg-type]
    assert [(result.name, result.severity) for result in results] == [
        ("broken", "critical"),
        ("fine", "ok"),
        ("broken too", "critical"),
    ]
    assert "Secret" not in results[0].message
    assert worst(results) == "critical"
    assert worst([]) == "ok"
    assert worst([Result("a", "warning", ""), Result("b", "ok", "")]) == "warning"


def test_a_check_that_hangs_is_critical_and_holds_nobody_up() -> None:
    let_go = threading.Event()

    def hangs(_subject: Subject) -> Result:
        let_go.wait()
        return Result("hangs", "ok", "too late")

    def fine(_subject: Subject) -> Result:
        return Result("fine", "ok", "well")

    results = run_all(None, {"hangs": hangs, "fine": fine}, limit_s=0.2)  # type: ignore[arg-type]
    let_go.set()
    assert [(each.name, severity(each)) for each in results] == [("hangs", "critical"), ("fine", "ok")]


def test_the_checks_of_an_instance_through_its_life(instance: Instance, tmp_path: Path) -> None:
    subject = Subject(instance.settings, instance.database, instance.volumes)
    assert [result.name for result in run_all(subject, CHECKS)] == list(CHECKS)
    assert severity(copies.run(subject)) == "ok"

    started = clock.now()
    record_run(instance.database, "reconcile", started, True, {"files": 0})
    assert severity(copies.run(subject)) == "ok"
    _age(instance, "reconcile", timedelta(days=3))
    assert severity(copies.run(subject)) == "warning"

    (instance.volumes.tier(1)[0].root / "volume.json").rename(tmp_path / "away.json")
    results = {result.name: severity(result) for result in run_all(subject, CHECKS)}
    assert results["volumes"] == "critical"
    assert results["database"] == "ok"


def _age(instance: Instance, kind: str, age: timedelta) -> None:
    with instance.database.transaction() as connection:
        connection.execute("UPDATE run SET finished_at = now() - %s WHERE kind = %s", (age, kind))


def test_who_waits_and_what_was_refused_of_late(instance: Instance) -> None:
    subject = Subject(instance.settings, instance.database, instance.volumes)
    assert severity(devices.run(subject)) == "ok"
    refusals.record(instance.database, [Refusal(RefusalKind.PROTOCOL, "", "192.0.2.1", "not DICOM")])
    result = devices.run(subject)
    assert severity(result) == "ok"
    assert "1 kinds" in result.message
    stranger = Refusal(RefusalKind.CALLING_AE, "STRANGER", "192.0.2.1", "not known")
    object_refused = Refusal(RefusalKind.OBJECT, "CT1", "192.0.2.1", "cut short", "0xC000: cut short")
    long_ago = Refusal(RefusalKind.LIMIT, "CT1", "192.0.2.1", "too many", at=clock.now() - timedelta(days=2))
    refusals.record(instance.database, [stranger, object_refused, long_ago])
    result = devices.run(subject)
    assert severity(result) == "warning"
    assert result.message == "1 callers wait to be accepted, 1 kinds of refused objects"
    assert "pacs device pending" in result.hint
    assert "pacs refusal list" in result.hint
    rows = refusals.list_refusals(instance.database)
    refusals.dismiss(instance.database, [row["refusal_key"] for row in rows])
    assert severity(devices.run(subject)) == "ok"


def test_reports_that_nobody_takes(instance: Instance) -> None:
    subject = Subject(instance.settings, instance.database, instance.volumes)
    key = commitment_rows.accept(instance.database, "1.2.3", "CT1", "192.0.2.17", [("1.2", "1.2.4")], 0)
    assert severity(commitments.run(subject)) == "ok"
    with instance.database.transaction() as connection:
        connection.execute("UPDATE commitment SET requested_at = now() - interval '2 hours'")
    assert severity(commitments.run(subject)) == "warning"
    assert "CT1" in commitments.run(subject).message
    assert commitment_rows.postpone(instance.database, key, "away", 1, give_up_after_s=3600)
    assert severity(commitments.run(subject)) == "critical"
    commitment_rows.retry(instance.database, key)
    assert severity(commitments.run(subject)) == "ok"


def _named(instance: Instance, place: Path) -> Subject:
    """An instance with a repository, which the worker has not seen yet."""
    place.mkdir()
    changes = RepositoryChanges(instance.database, instance.settings.data, instance.volumes)
    changes.add("usb", str(place), Given(on_system_disk=True))
    LogSpool(instance.settings.data).want(True)
    return Subject(instance.settings, instance.database, instance.volumes)


def test_the_backup_through_its_life(instance: Instance, tmp_path: Path) -> None:
    subject = Subject(instance.settings, instance.database, instance.volumes)
    assert severity(backup.run(subject)) == "warning", "no repository"
    assert severity(log_check.run(subject)) == "ok"
    subject = _named(instance, tmp_path / "repository")
    assert severity(backup.run(subject)) == severity(log_check.run(subject)) == "warning", "none yet"
    shipped = ShippedLog(LogSpool(instance.settings.data), "usb")

    def be(**state: object) -> tuple[str, str]:
        with shipped.changed() as known:
            for name, value in state.items():
                setattr(known, name, value)
        return severity(backup.run(subject)), severity(log_check.run(subject))

    now = clock.now()
    well = {"ready": True, "label": "L", "gap_since": None, "is_dropping": False, "backup_at": now.isoformat()}
    assert be(**well) == ("ok", "ok")
    assert be(damaged=True) == ("critical", "ok")
    assert be(damaged=False, backup_error="full") == ("critical", "ok")
    assert be(backup_error=None, backup_at=(now - timedelta(hours=27)).isoformat()) == ("critical", "ok")
    assert be(**well, error="away") == ("ok", "ok"), "nothing waits"
    segment = shipped.spool.path("000000010000000000000001")
    segment.write_bytes(b"log")
    assert be() == ("ok", "ok"), "it waits for a moment"
    for age, expected in ((timedelta(minutes=4), "warning"), (timedelta(minutes=31), "critical")):
        os.utime(segment, times=(0, (now - age).timestamp()))
        assert be()[1] == expected
    os.utime(segment, times=(0, now.timestamp()))
    assert be(point_waits_since=(now - timedelta(minutes=31)).isoformat()) == ("ok", "warning")
    assert be(gap_since=now.isoformat()) == ("ok", "critical")


def test_a_repository_on_a_disk_of_the_appliance_is_told_of(instance: Instance) -> None:
    place = instance.volumes.tier(2)[0].root.parent
    repository = Repository("usb", f"{instance.volumes.tier(2)[0].root}/backup", "local")
    assert place.is_dir()
    subject = Subject(instance.settings, instance.database, instance.volumes)
    assert backup.is_on_own_disk(subject, repository)
    assert not backup.is_on_own_disk(subject, Repository("usb", str(place / "elsewhere"), "local"))
