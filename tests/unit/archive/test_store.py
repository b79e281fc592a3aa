"""Storing: what is answered with success is there, what is not leaves nothing."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from pacs.archive.room import StateRoom
from pacs.archive.store import Arrival, Store
from pacs.cli.instance import Instance
from pacs.errors import CannotUnderstand, DatabaseUnavailable, DataSetDoesNotMatch, PacsError, VolumeFailed, VolumeFull
from pacs.index.database import Database
from pacs.index.runs import totals
from tests.synthetic import ct_dataset, encode
from tests.unit.model.encoding import DEFLATED, EXPLICIT, IMPLICIT, identity
from tests.unit.storage.test_durable import failing

CT = "1.2.840.10008.5.1.4.1.1.2"


def arrival(**changes: object) -> Arrival:
    return replace(Arrival(identity(), CT, "1.2.3.4", EXPLICIT), **changes)  # type: ignore[arg-type]


def files(instance: Instance) -> list[Path]:
    roots = [volume.root for volume in instance.volumes.all()]
    return [path for root in roots for path in root.rglob("*") if path.is_file() and path.name != "volume.json"]


def test_the_ways_an_object_comes_again(instance: Instance) -> None:
    store = instance.store()
    assert store.store(arrival()) == "stored"
    (first,) = files(instance)
    assert first.read_bytes().endswith(identity())
    assert store.store(arrival()) == "duplicate"
    assert store.store(arrival(dataset=identity(IMPLICIT), transfer_syntax_uid=IMPLICIT)) == "same content"
    assert files(instance) == [first]
    other = identity(PatientName="Another^Name")
    assert store.store(arrival(dataset=other)) == "conflict"
    assert len(files(instance)) == 2
    assert store.store(arrival(dataset=other)) == "duplicate"
    assert len(files(instance)) == 2
    counts = totals(instance.database)
    # One of the two contents, and one of the two names.
    assert (counts["studies"], counts["objects"], counts["conflicts"]) == (1, 2, 2)
    made = encode(ct_dataset(1, rows=8, columns=8))
    assert store.store(Arrival(memoryview(made.dataset), CT, made.sop_instance_uid, EXPLICIT)) == "stored"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"dataset": identity()[:-1]}, CannotUnderstand),
        ({"dataset": b""}, CannotUnderstand),
        ({"dataset": identity(StudyInstanceUID="")}, CannotUnderstand),
        ({"dataset": identity(StudyInstanceUID="../../../etc/passwd")}, CannotUnderstand),
        ({"transfer_syntax_uid": DEFLATED}, CannotUnderstand),
        ({"sop_instance_uid": "9.9"}, DataSetDoesNotMatch),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, DataSetDoesNotMatch),
    ],
)
def test_what_is_refused_leaves_nothing(
    instance_once: Instance, changes: dict[str, object], error: type[PacsError]
) -> None:
    with pytest.raises(error):
        instance_once.store().store(arrival(**changes))
    assert files(instance_once) == []
    assert totals(instance_once.database)["objects"] == 0


@pytest.fixture
def instance_once(instance: Instance) -> Instance:
    return instance


def test_faults_of_disk_and_database(instance: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = instance.store()
    for call, number, error in (
        ("write", errno.ENOSPC, VolumeFull),
        ("fsync", errno.EIO, VolumeFailed),
        ("rename", errno.EIO, VolumeFailed),
    ):
        with monkeypatch.context() as broken:
            failing(broken, call, number)
            with pytest.raises(error) as caught:
                store.store(arrival())
        assert caught.value.status == 0xA700
        assert files(instance) == []
        assert totals(instance.database)["objects"] == 0

    gone = Database(f"host={tmp_path} dbname=pacs user=pacs")
    down = Store(gone, instance.volumes, 1 << 30, StateRoom(instance.settings.data, 0))
    with pytest.raises(DatabaseUnavailable):
        down.store(arrival())
    gone.close()
    assert files(instance) == [], "with no database, nothing is written"

    small = Store(instance.database, instance.volumes, 100, StateRoom(instance.settings.data, 0))
    with pytest.raises(CannotUnderstand):
        small.store(arrival())
    assert store.store(arrival()) == "stored"


def test_a_database_that_goes_away_in_the_middle_leaves_the_file_for_reconciliation(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the commit came through is not known: the file may be the only place of an acknowledged object."""
    import psycopg

    real = instance.volumes.tier(1)[0].place

    def place_and_cut(received: object, path: str) -> None:
        real(received, path)  # type: ignore[arg-type]
        with psycopg.connect(instance.database.conninfo, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    with monkeypatch.context() as cut:
        cut.setattr(instance.volumes.tier(1)[0], "place", place_and_cut)
        with pytest.raises(DatabaseUnavailable):
            instance.store().store(arrival())
    assert len(files(instance)) == 1
    assert totals(instance.database)["objects"] == 0

    from pacs.archive.reconcile import reconcile

    findings = reconcile(instance.database, instance.volumes.all(), orphan_age_s=0)
    assert (findings.indexed, findings.quarantined) == (1, 0)
    assert instance.store().store(arrival()) == "duplicate"
