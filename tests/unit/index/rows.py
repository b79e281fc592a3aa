"""Rows for tests: objects with any attributes, indexed as the receive path does it."""

from __future__ import annotations

import hashlib
import itertools
import uuid

from pacs.index import store as rows
from pacs.index import volumes
from pacs.index.database import Database
from pacs.model.attributes import ATTRIBUTES
from pacs.model.record import IndexRecord

EXPLICIT = "1.2.840.10008.1.2.1"
_numbers = itertools.count(1)


def new_volume(database: Database, tier: int = 1) -> str:
    """A volume that the index knows; there is none on any disk."""
    volume_id = str(uuid.uuid4())
    volumes.register_volume(database, volumes.KnownVolume(volume_id, volume_id, tier, f"/nowhere/{volume_id}"))
    return volume_id


def record(**values: str | int | None) -> IndexRecord:
    """A record of an object, new unless its UIDs are given; values by column."""
    number = next(_numbers)
    columns: dict[str, str | int | None] = {
        attribute.column: None if attribute.vr == "IS" else "" for attribute in ATTRIBUTES
    }
    columns |= {
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": f"1.9.{number}.1.1",
        "series_instance_uid": f"1.9.{number}.1",
        "study_instance_uid": f"1.9.{number}",
        "patient_id": f"P{number}",
    }
    return IndexRecord(columns | values)


def store(
    database: Database, volume_id: str, made: IndexRecord, content: bytes | None = None, keep_beside: bool = False
) -> tuple[str, int]:
    """Index an object as one that was just placed on a volume; its bytes are those of its record unless given."""
    sha256 = hashlib.sha256(repr(sorted(made.values.items())).encode() if content is None else content).digest()
    file = rows.StoredFile(volume_id, f"objects/{uuid.uuid4()}.dcm", sha256, 1000)
    with database.transaction() as connection:
        return rows.store(connection, made, EXPLICIT, file, None, keep_beside)


def counts(database: Database) -> dict[str, int]:
    """How many rows the tables of objects have."""
    tables = ("patient", "study", "series", "object", "copy", "duplicate", "conflict")
    with database.transaction() as connection:
        return {
            table: connection.execute(f"SELECT count(*) AS n FROM {table}".encode()).fetchone()["n"]  # type: ignore[index]
            for table in tables
        }
