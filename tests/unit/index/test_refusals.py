"""Refusals: one row a group however often, and never more rows than the bounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pacs import clock
from pacs.errors import NotFound
from pacs.index import refusals
from pacs.index.database import Database
from pacs.index.refusals import Refusal, RefusalKind
from tests.unit.index.test_store import at_once

STRANGER = Refusal(RefusalKind.CALLING_AE, "STRANGER", "192.0.2.1", "AE title 'STRANGER' is not known.", wanted=("CT",))


def test_the_same_again_is_counted_in_one_row(database: Database) -> None:
    first_at = clock.now() - timedelta(hours=1)
    refusals.record(database, [replace(STRANGER, at=first_at)])
    refusals.record(
        database, [replace(STRANGER, count=4, reason="Newer words."), replace(STRANGER, address="192.0.2.2")]
    )
    rows = {row["address"]: row for row in refusals.list_refusals(database)}
    assert {address: row["count"] for address, row in rows.items()} == {"192.0.2.1": 5, "192.0.2.2": 1}
    row = rows["192.0.2.1"]
    assert row["first_at"] == first_at
    assert row["last_at"] > first_at
    assert (row["reason"], row["wanted"]) == ("Newer words.", ["CT"])


def test_dismissed_ones_are_counted_on_and_not_shown(database: Database) -> None:
    refusals.record(database, [STRANGER])
    (row,) = refusals.list_refusals(database)
    refusals.dismiss(database, [row["refusal_key"]])
    refusals.record(database, [STRANGER])
    assert refusals.list_refusals(database) == []
    (row,) = refusals.list_refusals(database, with_dismissed=True)
    assert row["count"] == 2
    assert refusals.refusal(database, row["refusal_key"])["calling_ae"] == "STRANGER"
    with pytest.raises(NotFound):
        refusals.refusal(database, row["refusal_key"] + 1)


def test_a_flood_ages_out_its_own_and_no_others(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "GROUPS_OF_ADDRESS_MAX", 10)
    refusals.record(database, [STRANGER])
    for part in range(5):
        refusals.record(
            database, [replace(STRANGER, address="198.51.100.1", calling_ae=f"F{part}{n}") for n in range(8)]
        )
    rows = refusals.list_refusals(database)
    assert len(rows) == 11
    assert [row["calling_ae"] for row in rows if row["address"] == "192.0.2.1"] == ["STRANGER"]
    assert {row["calling_ae"][:2] for row in rows[:8]} == {"F4"}


def test_many_addresses_are_bounded_in_all(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "GROUPS_MAX", 20)
    for part in range(3):
        refusals.record(database, [replace(STRANGER, address=f"198.51.{part}.{n}") for n in range(20)])
    assert {row["address"].rpartition(".")[0] for row in refusals.list_refusals(database)} == {"198.51.2"}


def test_receivers_that_record_at_once_lose_no_count(database: Database) -> None:
    groups = [replace(STRANGER, calling_ae=f"AE{number}") for number in range(12)]

    def work(number: int) -> None:
        for _ in range(5):
            refusals.record(database, groups[number:] + groups[:number])

    at_once(work)
    assert {row["count"] for row in refusals.list_refusals(database)} == {40}
