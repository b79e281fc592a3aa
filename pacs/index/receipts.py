"""Queries about what has come since receipts were last written."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from pacs.index.database import Connection, Row

#: How many objects a turn takes.
OBJECTS_MAX = 20_000


def marks(connection: Connection) -> Row:
    """Up to where there is a receipt of everything: object_key, duplicate_key."""
    row = connection.execute("SELECT object_key, duplicate_key FROM receipt_mark WHERE tenant_id = 1").fetchone()
    assert row is not None
    return row


def move_marks(connection: Connection, object_key: int, duplicate_key: int) -> None:
    """Note up to where there is one."""
    connection.execute(
        "UPDATE receipt_mark SET object_key = %s, duplicate_key = %s WHERE tenant_id = 1", (object_key, duplicate_key)
    )


def whole_until(connection: Connection) -> datetime:
    """Whatever came before this is visible to the next transaction: nobody is storing it still.

    A transaction that has written nothing yet (no backend_xid) can only write what comes later.
    """
    row = connection.execute(
        "SELECT least(now() - interval '1 second', min(xact_start)) AS at FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_xid IS NOT NULL"
    ).fetchone()
    assert row is not None
    at: datetime = row["at"]
    return at


_FROM = "a.association_key, a.calling_ae, a.peer, a.user_name, a.opened_at, a.closed_at, a.default_character_set"


def objects_after(connection: Connection, object_key: int) -> list[Row]:
    """Objects with a higher key, in order, with their study and association."""
    return connection.execute(
        f"SELECT o.object_key AS key, o.sha256, o.sop_instance_uid, o.arrived_at, st.study_instance_uid, {_FROM}"
        " FROM object o JOIN series se USING (series_key) JOIN study st USING (study_key)"
        " LEFT JOIN association a ON a.association_key = o.association_key"
        " WHERE o.object_key > %s ORDER BY o.object_key LIMIT %s".encode(),
        (object_key, OBJECTS_MAX),
    ).fetchall()


def duplicates_after(connection: Connection, duplicate_key: int) -> list[Row]:
    """What came again, the same way; not what was kept beside, which is an object of its own."""
    return connection.execute(
        "SELECT d.duplicate_key AS key, d.kind, d.arrived_at, o.sha256, o.sop_instance_uid, st.study_instance_uid,"
        f" {_FROM} FROM duplicate d JOIN object o USING (object_key) JOIN series se USING (series_key)"
        " JOIN study st USING (study_key) LEFT JOIN association a ON a.association_key = d.association_key"
        " WHERE d.duplicate_key > %s AND d.kind <> 'conflict' ORDER BY d.duplicate_key LIMIT %s".encode(),
        (duplicate_key, OBJECTS_MAX),
    ).fetchall()


def associations(connection: Connection, keys: Collection[int]) -> list[Row]:
    """Associations by their keys."""
    return connection.execute(
        f"SELECT {_FROM} FROM association a WHERE a.association_key = ANY (%s)".encode(), (list(keys),)
    ).fetchall()


def open_associations(connection: Connection) -> set[int]:
    """The keys of associations that are open."""
    rows = connection.execute("SELECT association_key FROM association WHERE closed_at IS NULL").fetchall()
    return {row["association_key"] for row in rows}


def newest_keys(connection: Connection) -> tuple[int, int]:
    """The highest key of an object, and of a duplicate; 0 where there is none."""
    row = connection.execute(
        "SELECT coalesce((SELECT max(object_key) FROM object), 0) AS objects,"
        " coalesce((SELECT max(duplicate_key) FROM duplicate), 0) AS duplicates"
    ).fetchone()
    assert row is not None
    return row["objects"], row["duplicates"]
