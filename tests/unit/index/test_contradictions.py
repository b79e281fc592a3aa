"""What contradicts is raised once, keeps what came, and stops no object; at once from many associations, too."""

from __future__ import annotations

import hashlib
import random

import pytest

from pacs.index import conflicts
from pacs.index.database import Database, Row
from tests.unit.index.rows import counts, new_volume, record, store
from tests.unit.index.test_store import at_once

STUDY = {"study_instance_uid": "1.2", "series_instance_uid": "1.2.1"}


def raised(database: Database) -> list[Row]:
    return conflicts.list_conflicts(database)


def test_a_study_of_another_patient_is_raised_once_an_identity(database: Database) -> None:
    volume = new_volume(database)
    store(database, volume, record(**STUDY, patient_id="P1", patient_name="First^Patient"))
    for _ in range(3):
        made = record(**STUDY, patient_id="P2", patient_name="Second^Patient", patient_birth_date="19700101")
        assert store(database, volume, made)[0] == "stored"
    store(database, volume, record(**STUDY, patient_id="P1", issuer_of_patient_id="ELSEWHERE"))
    store(database, volume, record(**STUDY, patient_id=""))
    found = raised(database)
    assert [row["kind"] for row in found] == ["study"] * 3
    came = found[0]["came"]
    assert (came["patient_id"], came["patient_name"], came["patient_birth_date"]) == (
        "P2", "Second^Patient", "19700101",
    )  # fmt: skip
    assert conflicts.subject(database, "study", found[0]["subject_key"])["patient_id"] == "P1"
    assert (counts(database)["study"], counts(database)["object"]) == (1, 6)


@pytest.mark.parametrize(
    ("known", "came", "is_raised"),
    [
        ("Müller^Hans", "MULLER^HANS", False),
        ("Doe^John", "Doe John", False),
        ("Doe^John", "doe^john^", False),
        ("Doe^John", "Doe, John", False),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou", False),
        ("Yamada^Tarou", "YAMADA^TAROU=山田^太郎", False),
        ("Doe^John", "", False),
        ("Doe^John", "Doe^Jane", True),
        ("Li^Na", "Lin^A", True),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou=山本^太郎", True),
        ("Yamada^Tarou", "=山田^太郎", True),
        ("は", "ば", True),
        ("", "Doe^John", True),  # the index shows no name: somebody must know
    ],
)
def test_names_are_compared_as_a_person_would(database: Database, known: str, came: str, is_raised: bool) -> None:
    volume = new_volume(database)
    for name in (known, came, came):
        assert store(database, volume, record(patient_id="P1", patient_name=name))[0] == "stored"
    assert [row["kind"] for row in raised(database)] == ["patient"] * is_raised
    assert counts(database)["patient"] == 1


def test_each_other_name_is_raised_once_in_whatever_study(database: Database) -> None:
    volume = new_volume(database)
    for name in ("Doe^John", "Roe^Jane", "ROE^JANE", "Roe^Jane", "Poe^Ann", "Doe^John"):
        store(database, volume, record(**STUDY, patient_id="P1", patient_name=name))
        store(database, volume, record(patient_id="P1", patient_name=name))
    assert [row["came"]["patient_name"] for row in raised(database)] == ["Roe^Jane", "Poe^Ann"]


def test_patients_without_an_id_have_no_names_to_compare(database: Database) -> None:
    volume = new_volume(database)
    for name in ("Doe^John", "Roe^Jane"):
        store(database, volume, record(patient_id="", patient_name=name))
    assert raised(database) == []


def test_a_series_in_two_studies(database: Database) -> None:
    volume = new_volume(database)
    for study in ("1.1", "1.1", "1.2", "1.2", "1.3"):
        made = record(study_instance_uid=study, series_instance_uid="1.9", patient_id="P1")
        assert store(database, volume, made)[0] == "stored"
    found = raised(database)
    assert [(row["kind"], row["came"]["study_instance_uid"]) for row in found] == [("series", "1.2"), ("series", "1.3")]
    assert conflicts.subject(database, "series", found[0]["subject_key"])["study_instance_uid"] == "1.1"


def test_one_uid_in_two_series_is_told_from_two_contents(database: Database) -> None:
    volume = new_volume(database)
    uid = {"sop_instance_uid": "1.2.1.1", "patient_id": "P1"}
    store(database, volume, record(**STUDY, **uid))
    for series in ("1.2.1", "1.2.2"):
        made = record(**uid, study_instance_uid="1.2", series_instance_uid=series, instance_number=5)
        assert store(database, volume, made)[0] == "other"
        assert store(database, volume, made, keep_beside=True)[0] == "stored"
    assert [row["kind"] for row in raised(database)] == ["content", "place"]


def test_the_longest_names_fit_the_index(database: Database) -> None:
    volume = new_volume(database)
    for letter in "ﷺ𠀀":  # the first unfolds to 18 letters
        store(database, volume, record(patient_id="P1", patient_name=letter * 256))
    assert len(raised(database)) == 1


@pytest.mark.parametrize("round_number", range(3))
def test_one_new_study_of_many_patients_at_once(database: Database, round_number: int) -> None:
    volume = new_volume(database)
    at_once(lambda n: store(database, volume, record(**STUDY, patient_id=f"P{n}", sop_instance_uid=f"1.2.1.{n}")))
    found = counts(database)
    assert (found["study"], found["series"], found["object"], found["conflict"]) == (1, 1, 8, 7)


@pytest.mark.parametrize("round_number", range(3))
def test_one_new_patient_of_many_names_at_once(database: Database, round_number: int) -> None:
    volume = new_volume(database)
    at_once(lambda n: store(database, volume, record(patient_id="P1", patient_name=f"Name{n % 4}")))
    found = counts(database)
    assert (found["patient"], found["study"], found["object"], found["conflict"]) == (1, 8, 8, 3)


@pytest.mark.parametrize("round_number", range(3))
def test_one_new_series_in_many_studies_at_once(database: Database, round_number: int) -> None:
    volume = new_volume(database)
    at_once(
        lambda n: store(
            database, volume, record(study_instance_uid=f"1.{n}", series_instance_uid="1.99", patient_id="P1")
        )
    )
    found = counts(database)
    assert (found["study"], found["series"], found["conflict"]) == (8, 8, 7)


def test_an_object_of_a_known_series_tries_no_insert_but_its_own(database: Database) -> None:
    """An insert that does nothing takes a number of its sequence all the same: none is taken."""
    volume = new_volume(database)
    made = [record(**STUDY, patient_id="P1", sop_instance_uid=f"1.2.1.{n}") for n in range(20)]
    for each in made:
        store(database, volume, each)
    with database.transaction() as connection:
        for table, key in (("patient", "patient_key"), ("study", "study_key"), ("series", "series_key")):
            row = connection.execute(
                f"SELECT pg_sequence_last_value(pg_get_serial_sequence('{table}', '{key}')) AS last,"
                f" max({key}) AS newest FROM {table}".encode()
            ).fetchone()
            assert row is not None
            assert row["last"] == row["newest"], table


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_at_once_every_object_is_kept_and_every_entity_is_one(database: Database, seed: int) -> None:
    """Few patients, studies, series and objects, sent crosswise by many: no deadlock, no row twice, none lost."""
    volume = new_volume(database)
    kept: list[list[tuple[str, bytes]]] = [[] for _ in range(8)]

    def work(number: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        for turn in range(25):
            uid, study, series = (rng.randrange(size) for size in (12, 3, 4))
            made = record(
                sop_instance_uid=f"1.5.{uid}", study_instance_uid=f"1.{study}", series_instance_uid=f"1.9.{series}",
                patient_id=f"P{rng.randrange(3)}", patient_name=f"Name{rng.randrange(3)}",
            )  # fmt: skip
            content = b"%d %d" % (number, turn) if rng.random() < 0.7 else b"the same"
            outcome, _key = store(database, volume, made, content)
            if outcome == "other":
                outcome, _key = store(database, volume, made, content, keep_beside=True)
            assert outcome in ("stored", "duplicate")
            kept[number].append((f"1.5.{uid}", hashlib.sha256(content).digest()))

    at_once(work)
    with database.transaction() as connection:
        rows = connection.execute("SELECT sop_instance_uid, sha256, is_current FROM object").fetchall()
    assert {(row["sop_instance_uid"], row["sha256"]) for row in rows} == {each for part in kept for each in part}
    current = [row["sop_instance_uid"] for row in rows if row["is_current"]]
    assert sorted(current) == sorted({row["sop_instance_uid"] for row in rows})
    found = counts(database)
    assert found["patient"] <= 3
    assert found["study"] == 3
    assert found["copy"] == found["object"] == len(rows)
    of_objects = [row for row in raised(database) if row["kind"] in ("content", "place")]
    assert len(of_objects) == len(rows) - len(current), "each that is not current waits for a decision"
