"""Noting refusals: counted together, written behind the association's back, and kept while the database is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pacs.index import database as index
from pacs.index.database import Database
from pacs.index.refusals import Refusal, RefusalKind, list_refusals
from pacs.net import refusals
from pacs.net.refusals import Refusals

STRANGER = Refusal(RefusalKind.CALLING_AE, "STRANGER", "192.0.2.1", "not known")


@pytest.fixture
def database(conninfo: str) -> Iterator[Database]:
    opened = Database(conninfo)
    index.migrate(opened)
    yield opened
    opened.close()


def test_all_that_was_noted_is_written_when_it_stops(database: Database) -> None:
    noted = Refusals(database)
    threads = [
        threading.Thread(target=lambda: [noted.note(STRANGER) for _ in range(100)], name=str(n)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    noted.note(replace(STRANGER, address="192.0.2.2"))
    noted.stop()
    assert {row["address"]: row["count"] for row in list_refusals(database)} == {"192.0.2.1": 400, "192.0.2.2": 1}


def test_nothing_noted_nothing_written(database: Database) -> None:
    Refusals(database).stop()
    assert list_refusals(database) == []


def test_a_database_that_is_away_costs_nothing_and_loses_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_RETRY_S", 0.05)
    with database.transaction() as connection:
        connection.execute("ALTER TABLE refusal RENAME TO away")
    noted = Refusals(database)
    failed = threading.Event()
    monkeypatch.setattr(refusals.log, "warning", lambda *_words: failed.set())
    for _ in range(3):
        noted.note(STRANGER)
    assert failed.wait(10)
    noted.note(STRANGER)
    with database.transaction() as connection:
        connection.execute("ALTER TABLE away RENAME TO refusal")
    noted.stop()
    assert [row["count"] for row in list_refusals(database)] == [4]


def test_a_flood_is_bounded_in_memory(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "GROUPS_MAX", 5)
    with database.transaction() as connection:
        connection.execute("ALTER TABLE refusal RENAME TO away")
    noted = Refusals(database)
    for number in range(100):
        noted.note(replace(STRANGER, calling_ae=f"AE{number}"))
    assert len(noted._gathered) <= 2 * 5  # what is being written, and what came meanwhile
    noted.stop()


def test_what_a_peer_sends_is_made_fit_to_keep_and_to_show(database: Database) -> None:
    noted = Refusals(database)
    hostile = "A\0\x1b[2J\n\u202e\\" + "x" * 1000
    noted.note(
        Refusal(RefusalKind.OBJECT, hostile, "192.0.2.1", hostile, hostile, hostile, "", (hostile,) * 99, hostile)
    )
    noted.stop()
    (row,) = list_refusals(database)
    texts = [row["calling_ae"], row["called_ae"], row["reason"], row["detail"], row["sop_instance_uid"], *row["wanted"]]
    assert all(text.isprintable() and len(text) <= 500 for text in texts)
    assert len(row["wanted"]) <= 16
