"""Storing several objects of a series over one session: the database begins while the file is made safe."""

from __future__ import annotations

import errno

import psycopg
import pytest

from pacs.archive.store import Announced, Arriving, Store, StoreSession
from pacs.cli.instance import Instance
from pacs.errors import DatabaseUnavailable, VolumeFailed
from pacs.index import insertion
from pacs.index.runs import totals
from tests.synthetic import SyntheticObject, ct_dataset, encode
from tests.unit.archive.test_store import files
from tests.unit.storage.test_durable import failing


@pytest.fixture
def store(instance: Instance) -> Store:
    return instance.store()


@pytest.fixture
def session() -> StoreSession:
    return StoreSession()


def an_image(number: int, **changes: str) -> SyntheticObject:
    ds = ct_dataset(3, number, rows=8, columns=8)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return encode(ds)


def arriving(store: Store, session: StoreSession, image: SyntheticObject) -> Arriving:
    announced = Announced(image.sop_class_uid, image.sop_instance_uid, image.transfer_syntax_uid)
    begun = store.begin(announced, session)
    begun.write(memoryview(image.dataset))
    return begun


def test_a_series_is_looked_for_once(
    instance: Instance, store: Store, session: StoreSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    real = insertion.Insertion.__init__

    def counting(self: insertion.Insertion, connection: object, series_key: int, *rest: object) -> None:
        begun.append(series_key)
        real(self, connection, series_key, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(insertion.Insertion, "__init__", counting)
    for number in range(1, 6):
        assert arriving(store, session, an_image(number)).finish() == "stored"
    assert len(begun) == 4, "all but the first of a series"
    assert arriving(store, session, an_image(9, SeriesInstanceUID="1.2.9")).finish() == "stored"
    assert arriving(store, session, an_image(10, PatientName="Another^Name")).finish() == "stored"
    assert len(begun) == 4, "another series, another name: nothing is taken for granted"
    counts = totals(instance.database)
    assert (counts["objects"], counts["conflicts"]) == (7, 1)
    with instance.database.transaction() as connection:
        rows = connection.execute(
            "SELECT series_key, count(*) AS objects FROM object JOIN copy USING (object_key) GROUP BY 1 ORDER BY 2 DESC"
        ).fetchall()
    assert [row["objects"] for row in rows] == [6, 1]
    assert rows[0]["series_key"] == begun[0]


def test_what_comes_again_in_a_known_series(instance: Instance, store: Store, session: StoreSession) -> None:
    for number in (1, 2):
        arriving(store, session, an_image(number)).finish()
    assert arriving(store, session, an_image(2)).finish() == "duplicate"
    assert len(files(instance)) == 2
    assert arriving(store, session, an_image(2, ContentTime="235959")).finish() == "conflict"
    assert arriving(store, session, an_image(3)).finish() == "stored"
    assert len(files(instance)) == 4


def test_a_series_that_is_gone_is_made_again(instance: Instance, store: Store, session: StoreSession) -> None:
    for number in (1, 2):
        arriving(store, session, an_image(number)).finish()
    with instance.database.transaction() as connection:
        connection.execute("TRUNCATE series CASCADE")
    assert arriving(store, session, an_image(3)).finish() == "stored"
    assert totals(instance.database)["objects"] == 1


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_fault_of_the_disk_undoes_the_row(
    instance: Instance, store: Store, session: StoreSession, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for number in (1, 2):
        arriving(store, session, an_image(number)).finish()
    with monkeypatch.context() as patch:
        failing(patch, call, errno.EIO)
        with pytest.raises(VolumeFailed):
            arriving(store, session, an_image(3)).finish()
    assert len(files(instance)) == 2
    assert totals(instance.database)["objects"] == 2
    assert arriving(store, session, an_image(3)).finish() == "stored", "the session goes on"


def test_a_connection_that_breaks_leaves_the_file(instance: Instance, store: Store, session: StoreSession) -> None:
    for number in (1, 2):
        arriving(store, session, an_image(number)).finish()
    begun = arriving(store, session, an_image(3))
    with store.database.lent_connection() as connection:  # it is lent again to the next
        backend = connection.info.backend_pid
    real = store.volumes.tier(1)[0].place

    def place_and_break(*words: object) -> None:
        real(*words)  # type: ignore[arg-type]
        with psycopg.connect(store.database.conninfo, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))

    store.volumes.tier(1)[0].place = place_and_break  # type: ignore[method-assign]
    with pytest.raises(DatabaseUnavailable):
        begun.finish()
    store.volumes.tier(1)[0].place = real  # type: ignore[method-assign]
    assert len(files(instance)) == 3, "nobody knows whether it was committed: reconciliation decides"
    assert totals(instance.database)["objects"] == 2
    assert arriving(store, session, an_image(3)).finish() == "stored", "on a new connection"
