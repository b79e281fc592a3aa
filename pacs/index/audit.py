"""Queries of the audit log: what arrived over which association, and whose studies are."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from pacs.index.database import SESSION_LOCK_CLASS, Connection, Database, Row

#: So many arrivals are looked at in a turn.
ARRIVALS_MAX = 20_000

#: Table → its key, and what of it arrived.
_TABLES = {"object": "object_key", "duplicate": "duplicate_key"}


def mark(connection: Connection) -> dict[str, int]:
    """Up to where what arrived is in the audit log: {"object": key, "duplicate": key}."""
    row = connection.execute("SELECT object_key, duplicate_key FROM audit_mark WHERE tenant_id = 1").fetchone()
    assert row is not None
    return {"object": row["object_key"], "duplicate": row["duplicate_key"]}


def move_mark(connection: Connection, object_key: int, duplicate_key: int) -> None:
    """Note up to where it is."""
    connection.execute(
        "UPDATE audit_mark SET object_key = %s, duplicate_key = %s WHERE tenant_id = 1", (object_key, duplicate_key)
    )


def seen_until(connection: Connection, table: str, after: int, until: datetime) -> tuple[int, bool]:
    """Up to which key everything that arrived before `until` follows without a gap, ARRIVALS_MAX at most; and whether
    there may be more."""
    key = _TABLES[table]
    row = connection.execute(
        f"WITH seen AS (SELECT {key} AS key, arrived_at FROM {table} WHERE {key} > %(after)s ORDER BY {key}"
        "               LIMIT %(max)s), late AS (SELECT min(key) AS key FROM seen WHERE arrived_at >= %(until)s)"
        " SELECT max(seen.key) FILTER (WHERE late.key IS NULL OR seen.key < late.key) AS key, count(*) AS count"
        " FROM seen, late".encode(),
        {"after": after, "until": until, "max": ARRIVALS_MAX},
    ).fetchone()
    assert row is not None
    return (after, False) if row["key"] is None else (int(row["key"]), row["count"] == ARRIVALS_MAX)


def arrivals(connection: Connection, table: str, after: int, through: int) -> list[Row]:
    """What arrived with keys in (after, through], by association, study and SOP class: association_key, study_key,
    sop_class_uid, objects, first_key. What no association brought is left out."""
    # What was kept beside is an object of its own.
    source = "object o" if table == "object" else "duplicate d JOIN object o USING (object_key)"
    name, only = ("o", "") if table == "object" else ("d", " AND d.kind <> 'conflict'")
    key = f"{name}.{_TABLES[table]}"
    return connection.execute(
        f"SELECT {name}.association_key, se.study_key, o.sop_class_uid, count(*) AS objects, min({key}) AS first_key"
        f" FROM {source} JOIN series se USING (series_key)"
        f" WHERE {key} > %s AND {key} <= %s AND {name}.association_key IS NOT NULL{only} GROUP BY 1, 2, 3".encode(),
        (after, through),
    ).fetchall()


def first_since(connection: Connection, table: str, mark: int, since: datetime) -> int:
    """The mark, or one before what arrived since then, a few thousand back at most."""
    key = _TABLES[table]
    row = connection.execute(
        f"SELECT min(key) - 1 AS key FROM (SELECT {key} AS key, arrived_at FROM {table} WHERE {key} <= %s"
        f" ORDER BY {key} DESC LIMIT {ARRIVALS_MAX}) newest WHERE arrived_at >= %s".encode(),
        (mark, since),
    ).fetchone()
    return mark if row is None or row["key"] is None else int(row["key"])


def associations(connection: Connection, keys: Collection[int]) -> list[Row]:
    """Associations by their keys: who called, opened_at, closed_at, and is_open: it is, and its receiver lives."""
    return connection.execute(
        "SELECT a.association_key, a.calling_ae, a.peer, a.user_name, a.tls_certificate_sha256, a.opened_at,"
        " a.closed_at, a.closed_at IS NULL AND EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory'"
        "   AND l.granted AND l.classid = %s AND l.objid = a.session_key"
        "   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS is_open"
        " FROM association a WHERE a.association_key = ANY (%s)",
        (SESSION_LOCK_CLASS, list(keys)),
    ).fetchall()


def studies(database: Database, study_keys: Collection[int]) -> dict[int, Row]:
    """Studies by their keys: study_instance_uid, patient_id, issuer_of_patient_id."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT s.study_key, s.study_instance_uid, p.patient_id, p.issuer_of_patient_id"
            " FROM study s JOIN patient p USING (patient_key) WHERE s.study_key = ANY (%s)",
            (list(study_keys),),
        ).fetchall()
    return {row["study_key"]: row for row in rows}
