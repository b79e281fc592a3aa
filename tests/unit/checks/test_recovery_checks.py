"""The checks of the drill and of what comes back behind a restore."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import timedelta

from pacs import clock
from pacs.checks import drill, restore
from pacs.checks.check import Subject
from pacs.cli.instance import Instance
from pacs.index import restores, tiers
from pacs.index.runs import record_run
from pacs.index.volumes import KnownVolume, register_volume
from pacs.model.drill_outcome import DrillOutcome
from tests.synthetic import ct_study
from tests.tiers import store


def _subject(instance: Instance) -> Subject:
    return Subject(instance.settings, instance.database, instance.volumes)


def _drilled(instance: Instance, succeeded: bool, **outcome: object) -> None:
    record_run(instance.database, "drill", clock.now(), succeeded, asdict(DrillOutcome(**outcome)))  # type: ignore[arg-type]


def _age(instance: Instance, age: timedelta) -> None:
    with instance.database.transaction() as connection:
        connection.execute("UPDATE run SET finished_at = now() - %s WHERE kind = 'drill'", (age,))


def test_the_drill_is_told_of_as_it_is(instance: Instance) -> None:
    subject = _subject(instance)
    assert drill.run(subject).severity == "warning"  # no repository
    register_volume(instance.database, KnownVolume(str(uuid.uuid4()), "usb", 4, "/nowhere"))
    assert drill.run(subject).severity == "warning"  # none ran
    _drilled(instance, False, error="There is no room for a drill.")
    found = drill.run(subject)
    assert (
        found.severity == "critical" and "no room" in found.message and "Last proven restore: never." in found.message
    )
    _drilled(instance, True, known=1_200_000, sampled=400)
    _age(instance, timedelta(hours=6))
    found = drill.run(subject)
    assert (found.severity, found.message) == (
        "ok", "Last proven restore: 6 hours ago, 1.2 million objects known, 400 sampled, 0 differ",
    )  # fmt: skip
    _drilled(instance, False, known=1_200_000, sampled=400, differ=2, problems=["Object 1.2.3 differs."])
    found = drill.run(subject)
    assert found.severity == "critical" and "Object 1.2.3" in found.message and "6 hours ago" in found.message
    _drilled(instance, True)
    _age(instance, timedelta(hours=28))
    assert drill.run(subject).severity == "critical", "none was tried since"


def test_a_restore_is_told_of_until_all_is_back(instance: Instance) -> None:
    subject = _subject(instance)
    assert restore.run(subject).severity == "ok"
    objects = ct_study(1, 2)
    store(instance, objects)
    with instance.database.transaction() as connection:
        restores.begin_bulk(connection, str(uuid.uuid4()), "usb", "p", clock.now())
    assert restore.run(subject).severity == "ok", "nothing is in a repository only"
    with instance.database.transaction() as connection:
        connection.execute("UPDATE volume SET tier = 4 WHERE tier = 1")
        restores.begin_bulk(connection, str(uuid.uuid4()), "usb", "p", clock.now())
        key = tiers.study_key_of(connection, objects[0].study_instance_uid)
    found = restore.run(subject)
    assert found.severity == "warning" and "0 of 2 objects" in found.message
    with instance.database.transaction() as connection:
        connection.execute("UPDATE recall SET last_error = 'the disk is full' WHERE study_key = %s", (key,))
    assert "1 studies wait: the disk is full" in restore.run(subject).message
    with instance.database.transaction() as connection:
        connection.execute("UPDATE recall SET state = 'done', finished_at = now(), objects = 2")
    assert restores.finish_bulk(instance.database)
    assert restore.run(subject).message.startswith("all is back")
