"""pacs_store: one object, one call, only inserts; and at once from many associations."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from pacs.index import movement, tiers, volumes
from pacs.index import store as rows
from pacs.index.database import Database
from pacs.model.attributes import ATTRIBUTES
from pacs.model.text import LENGTH_MAX
from tests.unit.index.rows import EXPLICIT, counts, new_volume, record, store


def at_once(work: Callable[[int], object], count: int = 8) -> list[object]:
    """Run work(0..count-1), each in a thread of its own, all starting together; their results, or raise one's error."""
    results: list[object] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait(10)
        try:
            results[number] = work(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.mark.parametrize("round_number", range(3))
def test_many_associations_with_objects_of_one_new_series_make_one_row_of_each(
    database: Database, round_number: int
) -> None:
    volume = new_volume(database)
    uids = {"patient_id": "P1", "study_instance_uid": "1.2", "series_instance_uid": "1.2.1"}
    outcomes = at_once(lambda n: store(database, volume, record(**uids, sop_instance_uid=f"1.2.1.{n}")))
    assert [outcome for outcome, _key in outcomes] == ["stored"] * 8  # type: ignore[misc]
    found = counts(database)
    assert found == {
        "patient": 1, "study": 1, "series": 1, "object": 8, "copy": 8, "duplicate": 0, "conflict": 0,
    }  # fmt: skip


@pytest.mark.parametrize("round_number", range(3))
def test_the_very_same_object_from_many_associations_is_stored_once(database: Database, round_number: int) -> None:
    volume = new_volume(database)
    made = record(study_instance_uid="1.2")
    outcomes = at_once(lambda _n: store(database, volume, made))
    assert Counter(outcome for outcome, _key in outcomes) == {"stored": 1, "duplicate": 7}  # type: ignore[misc]
    assert len({key for _outcome, key in outcomes}) == 1  # type: ignore[misc]
    found = counts(database)
    assert (found["object"], found["copy"], found["duplicate"]) == (1, 1, 7)


def test_one_uid_with_other_bytes_from_many_associations_has_one_current(database: Database) -> None:
    volume = new_volume(database)
    made = record(study_instance_uid="1.2")

    def work(number: int) -> str:
        outcome, _key = store(database, volume, made, b"%d" % number)
        if outcome == "other":
            outcome, _key = store(database, volume, made, b"%d" % number, keep_beside=True)
        return outcome

    assert at_once(work) == ["stored"] * 8
    found = counts(database)
    assert (found["object"], found["copy"], found["conflict"]) == (8, 8, 7)
    with database.transaction() as connection:
        row = connection.execute("SELECT count(*) AS n FROM object WHERE is_current").fetchone()
    assert row == {"n": 1}


def test_unknown_patients_with_one_id_stay_apart(database: Database) -> None:
    volume = new_volume(database)
    for patient_id in ("", "UNKNOWN", "0"):
        for study in ("1.1", "1.2"):
            store(database, volume, record(patient_id=patient_id, study_instance_uid=f"{study}.{len(patient_id)}"))
    assert counts(database)["patient"] == 6


def test_one_id_of_two_issuers_is_two_patients(database: Database) -> None:
    volume = new_volume(database)
    for issuer in ("A", "B", "", "A"):
        store(database, volume, record(patient_id="P1", issuer_of_patient_id=issuer))
    assert counts(database)["patient"] == 3


def test_a_study_stays_with_its_first_patient(database: Database) -> None:
    """What a modality corrects between two images of one study does not move the study, nor make it twice."""
    volume = new_volume(database)
    for patient_id in ("WRONG", "RIGHT"):
        assert store(database, volume, record(patient_id=patient_id, study_instance_uid="1.2"))[0] == "stored"
    assert counts(database)["study"] == 1


def test_a_duplicate_without_a_good_copy_heals(database: Database) -> None:
    volume = new_volume(database)
    made = record()
    _outcome, key = store(database, volume, made)
    assert store(database, volume, made) == ("duplicate", key)
    for state in ("missing", "bad"):
        with database.transaction() as connection:
            (copy,) = volumes.copies_on(connection, volume)
            volumes.set_copy_state(connection, copy["copy_key"], state)
        assert store(database, volume, made) == ("stored", key)
        with database.transaction() as connection:
            (healed,) = volumes.copies_on(connection, volume)
        assert healed["state"] == "good"
        assert healed["path"] != copy["path"]


def test_the_longest_values_of_the_longest_characters_fit_the_indexes(database: Database) -> None:
    """An index row of PostgreSQL holds 2,700 bytes; over that an insert fails for ever."""
    volume = new_volume(database)
    values = {
        attribute.column: "".join(chr(0x20000 + (number * 7919) % 40000) for number in range(LENGTH_MAX))
        for attribute in ATTRIBUTES
        if attribute.vr not in ("IS", "UI")
    }
    assert store(database, volume, record(**values))[0] == "stored"


@pytest.mark.parametrize(
    "value", ["'; DROP TABLE study; --", '"', "\\", "%", "{}", "\u2028", "𠀀", "a\\u0000b", "$1 %s %(x)s"]
)
def test_any_text_is_kept_as_it_is(database: Database, value: str) -> None:
    volume = new_volume(database)
    store(database, volume, record(patient_name=value, study_description=value))
    with database.transaction() as connection:
        row = connection.execute("SELECT patient_name, study_description FROM study JOIN patient USING (patient_key)")
        assert row.fetchone() == {"patient_name": value, "study_description": value}


def test_the_most_stored_syntax_of_a_class(database: Database) -> None:
    volume = new_volume(database)
    assert rows.most_stored_syntaxes(database) == {}
    for syntax, count in (("1.2.840.10008.1.2.4.70", 2), ("1.2.840.10008.1.2", 1)):
        for _ in range(count):
            made = record()
            file = rows.StoredFile(volume, made.sop_instance_uid, made.sop_instance_uid.encode().ljust(32), 1)
            with database.transaction() as connection:
                rows.store(connection, made, syntax, file, None)
    assert rows.most_stored_syntaxes(database) == {"1.2.840.10008.5.1.4.1.1.2": "1.2.840.10008.1.2.4.70"}


def test_a_class_that_came_long_ago_keeps_its_syntax(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest objects are counted: looking at all of them would cost more with every one that is stored."""
    monkeypatch.setattr(rows, "NEWEST_OBJECTS", 3)
    volume = new_volume(database)
    mammogram, ct = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.2"
    for number, (sop_class, syntax) in enumerate(
        [(mammogram, "1.2.840.10008.1.2.4.70"), (ct, EXPLICIT), (ct, EXPLICIT)] + [(ct, "1.2.840.10008.1.2.5")] * 2
    ):
        made = record(sop_class_uid=sop_class)
        file = rows.StoredFile(volume, made.sop_instance_uid, str(number).encode().ljust(32), 1)
        with database.transaction() as connection:
            rows.store(connection, made, syntax, file, None)
    assert rows.most_stored_syntaxes(database) == {mammogram: "1.2.840.10008.1.2.4.70", ct: "1.2.840.10008.1.2.5"}


def test_an_association_counts_as_open_only_while_its_receiver_lives(database: Database) -> None:
    """A study is settled when no open association touched it; a receiver that died must not hold it back for ever."""
    volume = new_volume(database)
    session = database.autocommit_connection()
    association = rows.open_association(database, rows.open_session(session), "CT1", "127.0.0.1")
    made = record()
    file = rows.StoredFile(volume, "objects/x", bytes(32), 1)
    with database.transaction() as connection:
        rows.store(connection, made, "1.2.840.10008.1.2", file, association)

    def settled() -> int:
        with database.transaction() as connection:
            return len(tiers.studies(connection, tiers.Wish([volume], 0), 10))

    assert settled() == 0
    session.close()
    for _ in range(100):
        if settled():
            break
        threading.Event().wait(0.05)
    assert settled() == 1


def test_the_last_good_copy_never_leaves(database: Database) -> None:
    one, two = new_volume(database), new_volume(database, 2)
    _outcome, key = store(database, one, record())
    with database.transaction() as connection:
        assert not movement.leave(connection, [key], [one], [one, two])
        volumes.add_copy(connection, key, two, "objects/two")
    with database.transaction() as connection:
        assert not movement.leave(connection, [key], [one], [one]), "the other volume is not here"
        assert movement.leave(connection, [key], [one], [one, two]) == 1
        assert not movement.leave(connection, [key], [two], [one, two])


def test_two_movers_do_not_take_each_others_copy(database: Database) -> None:
    one, two = new_volume(database), new_volume(database, 2)
    _outcome, key = store(database, one, record())
    with database.transaction() as connection:
        volumes.add_copy(connection, key, two, "objects/two")

    def leave(number: int) -> bool:
        with database.transaction() as connection:
            return movement.leave(connection, [key], [(one, two)[number % 2]], [one, two]) == 1

    at_once(leave)
    with database.transaction() as connection:
        states = connection.execute("SELECT state FROM copy WHERE object_key = %s", (key,)).fetchall()
    assert Counter(row["state"] for row in states) == {"good": 1, "leaving": 1}
