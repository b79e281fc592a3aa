"""An index of ten thousand instances and more: its size, its plans, and queries that go on page by page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from pacs.cli.cluster import Cluster
from pacs.index import computed, query
from pacs.index import database as index
from pacs.index.condition import Parameters
from pacs.index.database import Database
from pacs.index.query import PAGE_ROWS_MAX, Question
from pacs.model import matching
from pacs.model.attributes import BY_KEYWORD, Level
from pacs.model.matching import Match
from tests.bench import fill_index
from tests.bench.fill_index import Study
from tests.bench.query_latency import QUERIES, Keys
from tests.unit.index.rows import new_volume, record, store

STUDIES = 2500
BYTES_AN_INSTANCE_MAX = 2000


def new_database(cluster: Cluster, name: str) -> Iterator[Database]:
    import psycopg

    base = f"host={cluster.sockets} user=pacs"
    with psycopg.connect(f"{base} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    database = Database(f"{base} dbname={name}")
    index.migrate(database)
    yield database
    database.close()
    with psycopg.connect(f"{base} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="module")
def filled(cluster: Cluster) -> Iterator[Database]:
    """An index of STUDIES studies of four instances each."""
    for database in new_database(cluster, "test_filled"):
        fill_index.fill(database, STUDIES, 4)
        yield database


def question(keys: Keys) -> Question:
    level = Level[keys.get("QueryRetrieveLevel", "STUDY")]
    matches: dict[str, Match] = {}
    for keyword, value in keys.items():
        attribute = BY_KEYWORD.get(keyword) or computed.MATCHED_AS.get(keyword)
        match = matching.parse(attribute, value) if attribute else None
        if match is not None:
            matches[keyword] = match
    return Question(level, matches, [keyword for keyword in keys if keyword != "QueryRetrieveLevel"])


def test_the_index_takes_less_than_two_kilobytes_an_instance(cluster: Cluster) -> None:
    for database in new_database(cluster, "test_size"):
        fill_index.fill(database, 100, 100)
        sizes = fill_index.size_bytes(database)
        per_instance = {name: size / 10_000 for name, size in sizes.items()}
        print({name: round(size) for name, size in per_instance.items() if size > 1})
        assert sum(per_instance.values()) < BYTES_AN_INSTANCE_MAX
        assert per_instance["object"] > 100, "nothing was filled"


@pytest.mark.parametrize("name", QUERIES)
def test_the_usual_queries_look_at_what_they_answer_and_at_no_more(filled: Database, name: str) -> None:
    """No table of the archive is read through for any of them, and each finds the study that it was made for."""
    study = Study(1234, STUDIES)
    asked = question(QUERIES[name](study))
    found = list(query.find(filled, asked))
    assert len(found) == len({tuple(map(str, row.values())) for row in found})
    if name == "nobody's name":
        assert found == []
    elif name != "of the last day":
        assert study.uid in {row["StudyInstanceUID"] for row in found if "StudyInstanceUID" in row} or asked.level > 1
    parameters = Parameters()
    plan = query._plan(asked)
    conditions = " AND ".join(query._conditions(asked, plan, parameters))
    order = f" ORDER BY {', '.join(f'{each} DESC' for each in plan.order)} LIMIT 50" if plan.order else ""
    columns = query._columns(asked) if plan.order else query._KEY[asked.level]
    with filled.transaction() as connection:
        # In a small archive reading all of a table can be cheaper: here it is taken only where there is no index.
        connection.execute("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)")
        lines = connection.execute(
            f"EXPLAIN SELECT {columns} FROM {plan.tables} WHERE {conditions}{order}".encode(), parameters, prepare=False
        ).fetchall()
    explained = "\n".join(line["QUERY PLAN"] for line in lines)
    for table in ("patient", "patient_name", "study", "series", "object", "study_modality"):
        assert f"Seq Scan on {table} " not in explained, explained
    assert "Sort" not in explained or not plan.order, explained


@pytest.mark.parametrize(
    "keys",
    [
        {"StudyInstanceUID": ""},
        {"StudyInstanceUID": "", "StudyDate": "20200101-"},
        {"StudyInstanceUID": "", "ModalitiesInStudy": "CT"},
        {"StudyInstanceUID": "", "ModalitiesInStudy": "CT\\MR", "StudyDate": "-20261231"},
        {"StudyInstanceUID": "", "PatientName": "*^*a*"},
        {"StudyInstanceUID": "", "PatientID": "P00*"},
        {"StudyInstanceUID": "", "PatientSex": "F"},
        {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": ""},
        {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "", "StudyDate": "2026*"},
        {"QueryRetrieveLevel": "PATIENT", "PatientID": "", "PatientName": "s*"},
    ],
)
def test_every_page_goes_on_where_the_last_one_ended(filled: Database, keys: Keys) -> None:
    asked = question(keys)
    found = [row[asked.wanted[0]] for row in query.find(filled, asked)]  # type: ignore[index]
    parameters = Parameters()
    plan = query._plan(asked)
    conditions = " AND ".join(query._conditions(asked, plan, parameters))
    with filled.transaction() as connection:
        row = connection.execute(
            f"SELECT count(*) AS n FROM {plan.tables} WHERE {conditions}".encode(), parameters
        ).fetchone()
    assert row is not None
    assert len(set(found)) == len(found) == row["n"]
    if "StudyDate" not in keys or keys["StudyDate"] != "2026*":
        assert found


def open_transactions(database: Database) -> int:
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
            " AND pid <> pg_backend_pid() AND application_name = 'pacs'"
        ).fetchone()
    assert row is not None
    return int(row["n"])


@pytest.mark.parametrize("keys", [{"StudyInstanceUID": ""}, {"StudyInstanceUID": "", "PatientID": "P0*"}])
def test_an_asker_that_stops_taking_answers_holds_nothing_open(filled: Database, keys: Keys) -> None:
    """An open transaction would keep vacuum from its work for as long as the peer is slow."""
    rows = query.find(filled, question(keys))
    for count in (1, 100, PAGE_ROWS_MAX + 1):
        assert len(list(itertools.islice(rows, count))) == count
        assert open_transactions(filled) == 0
    rows.close()  # type: ignore[attr-defined]


def test_a_walk_that_finds_nothing_ends_when_it_is_cancelled(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at a stretch of the archive at a time, and between two asks whether it shall go on."""
    monkeypatch.setattr(query, "STRETCH_KEYS", 100)
    asked = question({"StudyInstanceUID": "", "StudyDescription": "*no such*"})
    for patience in (1, 3):
        looks = itertools.count(1)
        assert list(query.find(filled, asked, lambda: next(looks) > patience)) == []  # noqa: B023
        assert next(looks) == patience + 2
    looks = itertools.count(1)
    assert list(query.find(filled, asked, lambda: next(looks) < 0)) == []
    assert next(looks) > STUDIES / 100
    found = list(query.find(filled, question({"StudyInstanceUID": "", "StudyDescription": "* 7"})))
    assert len({row["StudyInstanceUID"] for row in found}) == len(found) == STUDIES / 50


def test_what_arrives_in_the_middle_changes_no_page(filled: Database) -> None:
    volume = new_volume(filled)
    rows = query.find(filled, question({"StudyInstanceUID": ""}))
    found = [next(rows)["StudyInstanceUID"] for _ in range(60)]
    for _ in range(3):
        assert store(filled, volume, record())[0] == "stored"
    found += [row["StudyInstanceUID"] for row in rows]
    assert len(found) == len(set(found)) == STUDIES


def test_the_same_numbers_make_the_same_rows() -> None:
    one, other = Study(77, 1000), Study(77, 1000)
    assert (one.patient.name, one.uid, one.day) == (other.patient.name, other.uid, other.day)
    assert len({Study(number, 1000).uid for number in range(1000)}) == 1000
