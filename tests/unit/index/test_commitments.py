"""Requests for storage commitment: written once, worked on by one at a time, never lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pacs.errors import NotFound
from pacs.index import commitments as rows
from pacs.index.database import Database

OBJECTS = [("1.2.840.10008.5.1.4.1.1.2", "1.2.3.1"), ("1.2.840.10008.5.1.4.1.1.2", "1.2.3.2")]


def accept(database: Database, uid: str = "1.2.3", objects: list[rows.Reference] = OBJECTS, ae: str = "CT1") -> int:
    return rows.accept(database, uid, ae, "192.0.2.17", objects, others_s=0)


def state_of(database: Database, key: int) -> str:
    return next(row["state"] for row in rows.list_commitments(database, 100) if row["key"] == key)


def test_the_same_request_is_one_and_other_objects_under_its_uid_are_a_duplicate(database: Database) -> None:
    key = accept(database)
    rows.note_verified(database, key, [0, 0])
    rows.note_reported(database, key)
    assert accept(database) == key
    again = rows.claim(database, 60)
    assert again is not None and (again.key, again.reasons, again.is_duplicate) == (key, None, False)
    other = accept(database, objects=OBJECTS[:1])
    assert other != key
    claimed = rows.claim(database, 60)
    assert claimed is not None and (claimed.key, claimed.is_duplicate) == (other, True)
    assert accept(database, ae="CT2") not in (key, other), "another device's transactions are its own"


def test_the_same_request_from_many_at_once_is_one(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _number: accept(database), range(16)))) == 1


def test_one_is_claimed_by_one_and_is_due_again_when_its_time_is_over(database: Database) -> None:
    keys = {accept(database, f"1.2.{number}") for number in range(8)}
    with ThreadPoolExecutor(8) as pool:
        claimed = [each for each in pool.map(lambda _number: rows.claim(database, 60), range(16)) if each]
    assert {each.key for each in claimed} <= keys
    assert len({each.key for each in claimed}) == len(claimed)
    while (more := rows.claim(database, 60)) is not None:
        claimed.append(more)
    assert {each.key for each in claimed} == keys
    assert claimed[0].referenced == OBJECTS
    key = claimed[0].key
    assert rows.claim(database, 60, key) is not None, "by its key it can be had: who asks knows what it does"
    rows.hold(database, key, -1)
    due = rows.claim(database, 60)
    assert due is not None and due.key == key


def test_what_was_found_is_kept_between_tries(database: Database) -> None:
    key = accept(database)
    rows.note_verified(database, key, [0, 0x0112])
    found = rows.claim(database, 60, key)
    assert found is not None and found.reasons == [0, 0x0112] and found.verified_age_s < 60
    assert rows.list_commitments(database, 10)[0]["failed"] == 1


def test_it_is_tried_again_until_it_is_given_up(database: Database) -> None:
    key = accept(database)
    assert not rows.postpone(database, key, "away", 100, give_up_after_s=3600)
    assert rows.claim(database, 60) is None
    found = rows.claim(database, 60, key)
    assert found is not None and found.attempts == 1
    assert rows.postpone(database, key, "away", 100, give_up_after_s=-1)
    assert state_of(database, key) == "given up"
    assert rows.claim(database, 60, key) is None
    assert rows.late(database, 3600) == [{"calling_ae": "CT1", "waiting": 0, "given_up": 1}]
    rows.retry(database, key)
    assert rows.claim(database, 60) is not None


def test_requests_of_one_device_wait_together_and_are_due_when_it_is_back(database: Database) -> None:
    first, second, others = accept(database, "1.1"), accept(database, "1.2"), accept(database, "1.3", ae="MR1")
    rows.hold(database, first, 60)
    rows.postpone_device(database, "CT1", "away", 100)
    found = rows.claim(database, 60)
    assert found is not None and found.key == others, "another device's is not held up"
    assert rows.claim(database, 60) is None
    rows.note_reported(database, first)
    found = rows.claim(database, 60)
    assert found is not None and found.key == second


def test_what_was_reported_is_forgotten_after_a_while_and_nothing_else(database: Database) -> None:
    reported, waiting = accept(database, "1.1"), accept(database, "1.2")
    rows.note_reported(database, reported)
    assert rows.forget_reported(database, 3600) == 0
    assert rows.forget_reported(database, -1) == 1
    assert [row["key"] for row in rows.list_commitments(database, 10)] == [waiting]
    rows.drop(database, waiting)
    for gone in (rows.drop, rows.retry):
        with pytest.raises(NotFound):
            gone(database, waiting)
