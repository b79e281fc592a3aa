"""Queries of a rebuild: the new index is made in a database of its own, beside the one that is there.

    <name>_rebuild made or taken up again ─▶ receipts ─▶ for each day of arrival: files read (COPY) ─▶ loaded
        ─▶ finished ─▶ <name> becomes <name>_before_<time>, <name>_rebuild becomes <name>: one transaction

Objects are stored in the order in which they came. All that says something new of its series, study or patient goes
through pacs_store itself; the rest, most of it, only adds an object to a series: one statement for a day's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import date, datetime
from importlib import resources
from typing import Any

from pacs.index.database import Connection, Database, Row


@dataclass(frozen=True)
class ReadFile:
    """A file that was read, as it goes into rebuild.file_<day>."""

    tenant_id: int
    volume_id: str
    path: str
    size_bytes: int
    modified_at: datetime
    sha256: bytes
    arrived_at: datetime
    is_receipted: bool
    association_key: int | None
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: int | None
    content_date: str
    content_time: str
    number_of_frames: int | None
    above: str
    fields: str | None


@dataclass(frozen=True)
class LeftOut:
    """A file that was left out, and why."""

    volume_id: str
    path: str
    reason: str


@dataclass(frozen=True)
class Receipt:
    """What a receipt says of an object: when it came, and the key of the association that brought it."""

    arrived_at: datetime
    association_key: int | None
    default_character_set: str


def prepare(database: Database) -> bool:
    """Make what a rebuild keeps beside the index; False if it is there already: a rebuild that goes on.

    Checks of references are taken off for the time being, as all of it is checked at once in the end: `finish`.
    """
    with database.transaction() as connection:
        if connection.execute("SELECT FROM pg_namespace WHERE nspname = 'rebuild'").fetchone() is not None:
            return False
        connection.execute(resources.files("pacs.index").joinpath("rebuild.sql").read_text("utf-8").encode())
        checks = connection.execute(
            "SELECT conrelid::regclass::text AS table, conname AS name, pg_get_constraintdef(oid) AS definition"
            " FROM pg_constraint WHERE contype = 'f' AND conrelid IN ('object'::regclass, 'copy'::regclass)"
        ).fetchall()
        for check in checks:
            connection.execute(f'ALTER TABLE {check["table"]} DROP CONSTRAINT "{check["name"]}"'.encode())
        put_state(connection, "checks", checks)
    return True


def state(connection: Connection, name: str) -> Any:
    """What the rebuild keeps under a name; None if there is nothing."""
    row = connection.execute("SELECT value FROM rebuild.state WHERE name = %s", (name,)).fetchone()
    return row["value"] if row else None


def put_state(connection: Connection, name: str, value: Any) -> None:
    """Keep something under a name."""
    connection.execute(
        "INSERT INTO rebuild.state VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, json.dumps(value)),
    )


# --- receipts ---------------------------------------------------------------------------------------------------------


@contextmanager
def loading_receipts(database: Database) -> Iterator[Connection]:
    """A transaction that takes all receipts in: association, receipt and again rows are copied into it in the block."""
    with database.transaction() as connection:
        connection.execute("SET LOCAL synchronous_commit = off")
        yield connection
        # An object can be receipted twice; it came when it came first.
        connection.execute(
            "DELETE FROM rebuild.receipt r USING rebuild.receipt e WHERE r.sha256 = e.sha256"
            " AND r.sop_instance_uid = e.sop_instance_uid AND (r.arrived_at, r.ctid) > (e.arrived_at, e.ctid)"
        )
        connection.execute("CREATE UNIQUE INDEX ON rebuild.receipt (sha256, sop_instance_uid)")
        connection.execute("ANALYZE rebuild.receipt")
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('association', 'association_key'),"
            " (SELECT max(association_key) FROM association)) WHERE EXISTS (SELECT FROM association)"
        )
        put_state(connection, "receipts", True)


def copy_receipts(connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
    """Rows (sha256, SOP Instance UID, Study Instance UID, arrived_at, association key)."""
    into = "rebuild.receipt (sha256, sop_instance_uid, study_instance_uid, arrived_at, association_key)"
    with connection.cursor().copy(f"COPY {into} FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)


def copy_again(connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
    """Rows (sha256, SOP Instance UID, arrived_at, kind, association key) of what came again."""
    with connection.cursor().copy("COPY rebuild.again FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def copy_associations(connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
    """Rows (key, calling AE, peer, user, opened_at, closed_at, default character set). No receiver has session 0."""
    into = "association_key, calling_ae, peer, user_name, opened_at, closed_at, default_character_set, session_key"
    with connection.cursor().copy(f"COPY association ({into}) FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row((*row, 0))


def receipts_of(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, Receipt]:
    """What receipts say of files, by SHA-256."""
    rows = connection.execute(
        "SELECT r.sha256, r.arrived_at, r.association_key, coalesce(a.default_character_set, '') AS character_set"
        " FROM rebuild.receipt r LEFT JOIN association a USING (association_key) WHERE r.sha256 = ANY (%s)",
        (list(digests),),
    ).fetchall()
    return {
        bytes(row["sha256"]): Receipt(row["arrived_at"], row["association_key"], row["character_set"]) for row in rows
    }


# --- files ------------------------------------------------------------------------------------------------------------


def _table(day: date) -> str:
    return f"rebuild.file_{day:%Y%m%d}"


def days_done(connection: Connection) -> set[date]:
    """The days that are loaded."""
    return {row["day"] for row in connection.execute("SELECT day FROM rebuild.day").fetchall()}


def begin_day(database: Database, day: date) -> set[str]:
    """Make room for a day's files; return the units of it that were read already."""
    with database.transaction() as connection:
        connection.execute(
            f"CREATE UNLOGGED TABLE IF NOT EXISTS {_table(day)} (LIKE rebuild.file INCLUDING DEFAULTS)".encode()
        )
        rows = connection.execute("SELECT unit FROM rebuild.unit WHERE unit LIKE %s", (f"{day}/%",)).fetchall()
    return {row["unit"] for row in rows}


def put_unit(
    connection: Connection, day: date, unit: str, files: Sequence[ReadFile], left_out: Sequence[LeftOut]
) -> None:
    """Keep what was read of a unit, in one transaction of the caller's."""
    names = ", ".join(field.name for field in fields(ReadFile))
    connection.execute("SET LOCAL synchronous_commit = off")
    with connection.cursor().copy(f"COPY {_table(day)} ({names}) FROM STDIN".encode()) as copy:
        for file in files:
            copy.write_row(astuple_of(file))
    for each in left_out:
        connection.execute("INSERT INTO rebuild.left_out VALUES (%s, %s, %s)", astuple(each))
    connection.execute(
        "INSERT INTO rebuild.unit VALUES (%s, %s, %s)", (unit, len(files), sum(file.size_bytes for file in files))
    )


_NAMES = tuple(field.name for field in fields(ReadFile))


def astuple_of(file: ReadFile) -> tuple[Any, ...]:
    """The columns of a file, in order. dataclasses.astuple copies deeply, and that takes longer than the rest."""
    return tuple(getattr(file, name) for name in _NAMES)


def begin_load(connection: Connection, day: date) -> None:
    """Begin to load a day, in one transaction of the caller's; `load` and `end_load` follow."""
    connection.execute("SET LOCAL synchronous_commit = off; SET LOCAL work_mem = '64MB'")
    connection.execute(f"INSERT INTO {_table(day)} SELECT * FROM rebuild.file".encode())
    connection.execute("DELETE FROM rebuild.file")
    connection.execute(f"ANALYZE {_table(day)}".encode())
    connection.execute(f"CREATE TEMPORARY VIEW loading AS SELECT * FROM {_table(day)}".encode())
    connection.execute(
        "CREATE TEMPORARY TABLE placed (above uuid PRIMARY KEY, series_key bigint NOT NULL) ON COMMIT DROP"
    )


def make_segment(connection: Connection, until: datetime | None) -> list[Row]:
    """Number the objects that came before `until` (None: all of the day). Return those whose fields are needed, and
    were left out: file_key, volume_id, path, association_key."""
    connection.execute("DROP TABLE IF EXISTS segment")
    connection.execute("SELECT rebuild.make_segment(coalesce(%s, 'infinity'::timestamptz))", (until,))
    connection.execute("ANALYZE segment")
    return connection.execute(
        "SELECT f.file_key, f.volume_id::text, f.path, coalesce(a.default_character_set, '') AS character_set"
        " FROM segment s JOIN loading f USING (file_key) LEFT JOIN association a USING (association_key)"
        " WHERE s.is_slow AND f.fields IS NULL"
    ).fetchall()


def put_fields(connection: Connection, day: date, file_key: int, all_fields: str) -> None:
    """Add the fields of a file that were left out."""
    connection.execute(f"UPDATE {_table(day)} SET fields = %s WHERE file_key = %s".encode(), (all_fields, file_key))


def load_segment(connection: Connection, until: datetime | None) -> None:
    """Store the objects of the segment, and all files that came before `until` as copies."""
    connection.execute("SELECT rebuild.store_slow()")
    connection.execute("ANALYZE placed")
    connection.execute("SELECT rebuild.store_rest(coalesce(%s, 'infinity'::timestamptz))", (until,))


def forget_placed(connection: Connection) -> None:
    """After a change of studies or patients: where objects go is to be looked at again."""
    connection.execute("TRUNCATE placed")


def end_load(connection: Connection, day: date, until: datetime | None) -> None:
    """The day is loaded; what came after it waits for the next."""
    connection.execute("DROP VIEW loading")
    if until is not None:
        connection.execute(
            f"INSERT INTO rebuild.file SELECT * FROM {_table(day)} WHERE arrived_at >= %s".encode(), (until,)
        )
    connection.execute(
        f"UPDATE rebuild.receipt r SET is_found = true FROM {_table(day)} f"
        " WHERE f.is_receipted AND r.sha256 = f.sha256 AND r.sop_instance_uid = f.sop_instance_uid".encode()
    )
    connection.execute(f"INSERT INTO rebuild.day SELECT %s, count(*) FROM {_table(day)}".encode(), (day,))
    connection.execute(
        "SELECT setval(pg_get_serial_sequence('object', 'object_key'), (SELECT max(object_key) FROM object))"
        " WHERE EXISTS (SELECT FROM object)"
    )
    connection.execute(f"DROP TABLE {_table(day)}".encode())
