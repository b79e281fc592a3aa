"""Queries of reconciliation: the copies on a volume in the order of their paths."""

from __future__ import annotations

from pacs.index.database import Connection, Row


def copies_after(connection: Connection, volume_id: str, position: str, copies_max: int) -> list[Row]:
    """The next copies on a volume behind a path: copy_key, object_key, path, state, sha256, size_bytes."""
    return connection.execute(
        "SELECT c.copy_key, c.object_key, c.path, c.state, o.sha256, o.size_bytes"
        " FROM copy c JOIN object o USING (object_key) WHERE c.volume_id = %s AND c.path > %s ORDER BY c.path LIMIT %s",
        (volume_id, position, copies_max),
    ).fetchall()


def has_copy_at(connection: Connection, volume_id: str, path: str) -> bool:
    """Whether a copy's file is at a path, as the index has it now."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM copy WHERE volume_id = %s AND path = %s) AS found", (volume_id, path)
    ).fetchone()
    assert row is not None
    return bool(row["found"])


def change_copy_state(connection: Connection, copy_key: int, path: str, old: str, new: str) -> bool:
    """Set a copy's state if it is the one that was looked at yet. True if done."""
    return (
        connection.execute(
            "UPDATE copy SET state = %s WHERE copy_key = %s AND path = %s AND state = %s", (new, copy_key, path, old)
        ).rowcount
        == 1
    )
