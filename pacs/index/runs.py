"""Results of what runs by itself: the worker's passes, reconciliation, backups."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pacs.index.database import Connection, Database, Row


def record_run(database: Database, kind: str, started_at: datetime, succeeded: bool, result: dict[str, Any]) -> None:
    """Note that something ran: its kind, when it began, whether it succeeded, and figures of it."""
    with database.transaction() as connection:
        insert_run(connection, kind, started_at, succeeded, result)


def insert_run(
    connection: Connection, kind: str, started_at: datetime, succeeded: bool, result: dict[str, Any]
) -> None:
    """The same in a transaction of the caller's."""
    connection.execute(
        "INSERT INTO run (kind, started_at, succeeded, result) VALUES (%s, %s, %s, %s)",
        (kind, started_at, succeeded, json.dumps(result)),
    )


def newest_run(database: Database, kind: str) -> Row | None:
    """The newest run of a kind: started_at, finished_at, succeeded, result. None if it never ran."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT started_at, finished_at, succeeded, result FROM run WHERE kind = %s ORDER BY run_key DESC LIMIT 1",
            (kind,),
        ).fetchone()


def rebuilt_without(database: Database) -> set[str]:
    """The ids of the volumes that were left out when the index was last rebuilt."""
    run = newest_run(database, "rebuild")
    told = run["result"].get("without_volumes", []) if run else []
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT volume_id::text FROM volume WHERE name = ANY (%s) OR volume_id::text = ANY (%s)", (told, told)
        ).fetchall()
    return {row["volume_id"] for row in found}


def newest_success(database: Database, kind: str) -> Row | None:
    """The newest run of a kind that succeeded, as newest_run has it."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT started_at, finished_at, succeeded, result FROM run WHERE kind = %s AND succeeded"
            " ORDER BY run_key DESC LIMIT 1",
            (kind,),
        ).fetchone()


def forget_old_runs(database: Database, kind: str, kept: int) -> None:
    """Keep only the newest runs of a kind."""
    with database.transaction() as connection:
        connection.execute(
            "DELETE FROM run WHERE kind = %(kind)s AND run_key < (SELECT run_key FROM run WHERE kind = %(kind)s"
            " ORDER BY run_key DESC OFFSET %(kept)s LIMIT 1)",
            {"kind": kind, "kept": kept - 1},
        )


def totals(database: Database) -> Row:
    """Counts for the status page: studies, objects, bytes, unresolved conflicts, copies missing or bad."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM study) AS studies, (SELECT count(*) FROM object) AS objects,"
            " (SELECT coalesce(sum(size_bytes), 0)::bigint FROM object) AS size_bytes,"
            " (SELECT count(*) FROM conflict WHERE resolved_at IS NULL) AS conflicts,"
            " (SELECT count(*) FROM copy WHERE state IN ('missing', 'bad')) AS lost_copies"
        ).fetchone()
    assert row is not None
    return row
