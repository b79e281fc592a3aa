"""Fills an index with studies that were never stored: the same numbers, the same rows. For size and speed of queries.

    python -m tests.bench.fill_index "host=DIR/run dbname=pacs user=pacs" --studies 100000 --instances 100

The tables must be empty. Patients, studies and series go in by COPY; their objects and copies are made by PostgreSQL
itself, a batch of studies a transaction.
"""

from __future__ import annotations

import argparse
import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from pacs.index import volumes
from pacs.index.database import Connection, Database
from pacs.model import names
from pacs.model.record import study_key

ROOT = "1.2.826.0.1.3680043.8.498"
#: The day on which the last of the studies was taken.
LAST_DAY = date(2026, 11, 20)
STUDIES_A_DAY = 40
SERIES_A_STUDY = 4
STUDIES_A_BATCH = 500
_CT, _EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"

FAMILIES = (
    "Smith Smithers Schmidt Schmitt Müller Mueller Meyer Maier Jones Brown Garcia García Nguyễn Kowalski Łukasz Novák"
    " Øvergård Åkesson Çelik Yılmaz Dubois Rossi Silva Gonçalves Kim Park Lee Wang Zhang Li Иванов Петрова Смирнов"
    " Παπαδόπουλος Γεωργίου حسن محمد כהן לוי"
).split()
GIVEN = (
    "Anna Jan Maria John José Émile Zoë Peter Yusuf Olga Sofía Ivan Иван Ольга Νίκος علي דוד Björn Siân Lucía".split()
)
IDEOGRAPHIC = (("Yamada", "山田", "やまだ"), ("Suzuki", "鈴木", "すずき"), ("Wang", "王", ""), ("Kim", "金", "김"))
MODALITIES = "CT CT CT MR MR CR DX US MG XA NM PT".split()


@dataclass(frozen=True)
class Patient:
    """A patient, by number."""

    number: int

    @property
    def patient_id(self) -> str:
        return f"P{self.number:08d}"

    @property
    def name(self) -> str:
        rng = random.Random(f"patient {self.number}")
        given = rng.choice(GIVEN)
        # Families of an archive are many: a number behind the name keeps the answers to a name few at any size.
        suffix = f"{rng.choice('abcdefghijklmnopqrstuvwxyz')}{self.number % 997}"
        if rng.random() < 0.1:
            roman, ideographic, phonetic = rng.choice(IDEOGRAPHIC)
            return f"{roman}{suffix}^{given}={ideographic}^太郎={phonetic}^".rstrip("=^")
        return f"{rng.choice(FAMILIES)}{suffix}^{given}"

    @property
    def birth_date(self) -> str:
        return (date(1930, 1, 1) + timedelta(days=self.number * 7919 % 32000)).strftime("%Y%m%d")


@dataclass(frozen=True)
class Study:
    """A study, by number, of `studies` in all; two of three patients have one study, one has two."""

    number: int
    studies: int

    @property
    def patient(self) -> Patient:
        return Patient(self.number - self.number // 4)

    @property
    def uid(self) -> str:
        return f"{ROOT}.{10**17 + self.number * 104729}.1"

    @property
    def day(self) -> str:
        return (LAST_DAY - timedelta(days=(self.studies - 1 - self.number) // STUDIES_A_DAY)).strftime("%Y%m%d")

    @property
    def modality(self) -> str:
        return MODALITIES[self.number * 31 % len(MODALITIES)]

    @property
    def accession_number(self) -> str:
        return f"A{self.number:010d}"

    def series_uid(self, series: int) -> str:
        return f"{self.uid}.{series}.{10**6 + self.number % 10**6}"


def fill(database: Database, studies: int, instances: int) -> None:
    """Fill an empty index with so many studies of so many instances each."""
    volume_id = str(uuid.UUID(int=1))
    volumes.register_volume(database, volumes.KnownVolume(volume_id, "filled", 1, "/nowhere"))
    for first in range(0, studies, STUDIES_A_BATCH):
        batch = [Study(number, studies) for number in range(first, min(first + STUDIES_A_BATCH, studies))]
        with database.transaction() as connection:
            # What refers to what is right by construction: checking it would take half of the time.
            connection.execute("SET LOCAL synchronous_commit = off; SET LOCAL session_replication_role = replica")
            _copy_patients(connection, batch, first)
            _copy_studies(connection, batch)
            _copy_series(connection, batch)
            _make_objects(connection, batch, instances, volume_id)
    with database.transaction() as connection:
        for table, key in (("patient", "patient_key"), ("study", "study_key"), ("series", "series_key")):
            connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{key}'),"
                f" (SELECT coalesce(max({key}), 1) FROM {table}))".encode()
            )
    settle(database)


def settle(database: Database) -> None:
    """Do what autovacuum does in its own time."""
    connection = database.autocommit_connection()
    connection.execute("VACUUM ANALYZE")
    connection.close()


def size_bytes(database: Database) -> dict[str, int]:
    """Bytes of every table with its indexes, the largest first."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT relname AS name, pg_total_relation_size(relid) AS size_bytes FROM pg_stat_user_tables"
            " ORDER BY 2 DESC"
        ).fetchall()
    return {row["name"]: row["size_bytes"] for row in rows}


def _copy(connection: Connection, table: str, columns: str, rows: Iterator[tuple[object, ...]]) -> None:
    with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)


def _copy_patients(connection: Connection, batch: list[Study], first: int) -> None:
    before = Study(first - 1, 0).patient.number if first else -1
    numbers = sorted({study.patient.number for study in batch} - {before})
    patients = [Patient(number) for number in numbers]
    _copy(
        connection,
        "patient",
        "tenant_id, patient_key, issuer_of_patient_id, patient_id, lone_study_uid, patient_name, patient_birth_date,"
        " patient_sex",
        ((1, p.number + 1, "", p.patient_id, "", p.name, p.birth_date, "FMO"[p.number % 3]) for p in patients),
    )
    named = [
        {
            "key": patient.number + 1,
            "fields": {
                "patient_name_keys": names.group_keys(patient.name),
                "patient_name_words": names.words(patient.name),
            },
        }
        for patient in patients
    ]
    connection.execute(
        "SELECT pacs_name_patient(1::smallint, key, fields) FROM jsonb_to_recordset(%s) n (key bigint, fields jsonb)",
        (json.dumps(named),),
    )


def _copy_studies(connection: Connection, batch: list[Study]) -> None:
    _copy(
        connection,
        "study",
        "tenant_id, study_key, patient_key, study_instance_uid, study_date, study_time, accession_number, study_id,"
        " study_description, referring_physician_name, referring_physician_name_key, timezone_offset, is_patients",
        (
            (
                1, s.number + 1, s.patient.number + 1, s.uid, s.day, f"{s.number % 24:02d}{s.number % 60:02d}00",
                s.accession_number, str(s.number % 100000), f"{s.modality} of part {s.number % 50}", "Curie^Marie",
                "curie^marie^", "", "t",
            )
            for s in batch
        ),
    )  # fmt: skip


def _copy_series(connection: Connection, batch: list[Study]) -> None:
    columns = (
        "tenant_id, series_key, study_key, series_instance_uid, modality, series_number, series_date, series_time,"
        " series_description, body_part_examined, protocol_name, institution_name, station_name, manufacturer,"
        " performed_date, performed_time"
    )
    _copy(
        connection,
        "series",
        columns,
        (
            (
                1, s.number * SERIES_A_STUDY + n + 1, s.number + 1, s.series_uid(n), s.modality, n + 1, s.day, "101500",
                f"Series {n}", "CHEST", "Routine", "General Hospital", "SCANNER1", "ACME", s.day, "101400",
            )
            for s in batch
            for n in range(SERIES_A_STUDY)
        ),
    )  # fmt: skip
    _copy(
        connection,
        "study_modality",
        "tenant_id, modality, study_date, study_key",
        ((1, s.modality, s.day, s.number + 1) for s in batch),
    )


def _make_objects(connection: Connection, batch: list[Study], instances: int, volume_id: str) -> None:
    """As many objects a series as `instances` is of SERIES_A_STUDY, at least one; in the order of their arrival."""
    each = max(1, instances // SERIES_A_STUDY)
    keys = (batch[0].number * SERIES_A_STUDY + 1, (batch[-1].number + 1) * SERIES_A_STUDY)
    connection.execute(
        "INSERT INTO stored_syntax VALUES (1, %s, %s) ON CONFLICT DO NOTHING",
        (_CT, _EXPLICIT),
    )
    connection.execute(
        "INSERT INTO object (tenant_id, series_key, sop_instance_uid, sop_class_uid, transfer_syntax_uid,"
        " instance_number, content_date, content_time, number_of_frames, sha256, size_bytes, is_current)"
        " SELECT 1, series_key, u.uid, %s, %s, n, series_date, '101500.123000', NULL, sha256(u.uid::bytea), 526000,"
        " true FROM series, generate_series(1, %s) n,"
        " LATERAL (SELECT series_instance_uid || '.' || (100000 + n * 7919)::text AS uid) u"
        " WHERE series_key BETWEEN %s AND %s ORDER BY series_key, n",
        (_CT, _EXPLICIT, each, *keys),
    )
    folders = json.dumps({str(study.number + 1): study_key(study.uid) for study in batch})
    connection.execute(
        "INSERT INTO copy (tenant_id, object_key, volume_id, path)"
        " SELECT 1, object_key, %s, 'objects/1/' || substr(content_date, 1, 4) || '/' || substr(content_date, 5, 2)"
        " || '/' || substr(content_date, 7, 2) || '/' || (%s::jsonb ->> study_key::text) || '/'"
        " || encode(sha256, 'hex') || '-' || substr(md5(object_key::text), 1, 16) || '.dcm'"
        " FROM object JOIN series USING (series_key) WHERE series_key BETWEEN %s AND %s ORDER BY object_key",
        (volume_id, folders, *keys),
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("conninfo")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=100)
    arguments = parser.parse_args()
    database = Database(arguments.conninfo)
    fill(database, arguments.studies, arguments.instances)
    sizes = size_bytes(database)
    for name, size in sizes.items():
        print(f"{name:20} {size:>14,}")
    print(f"bytes an instance: {sum(sizes.values()) / (arguments.studies * arguments.instances):.0f}")
    database.close()


if __name__ == "__main__":
    main()
