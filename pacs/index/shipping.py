"""Queries of shipping: which objects a repository does not have, how far it is, and how far behind.

A look begins behind a position below which all was seen, so that it costs what is new and not what there is. An object
whose transaction was slow may have come to light below others: so the position stays ten minutes behind what arrives,
and once a day all of the archive is looked through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pacs.index.database import Connection, Database, Row

#: The position stays so far behind what arrives: longer than any transaction that stores an object.
_BEHIND = timedelta(minutes=10)
#: How often all of the archive is looked through.
_SWEEP_AGE = timedelta(hours=24)
#: What a repository, or a standby with several volumes, lacks: objects beyond `after` that have no row there, and a
#: good copy somewhere.
LACKED = """
    o.object_key > %(after)s
    AND NOT EXISTS (SELECT FROM copy k WHERE k.object_key = o.object_key
                    AND k.volume_id = ANY (%(volume_ids)s::uuid[]))
    AND EXISTS (SELECT FROM copy k WHERE k.object_key = o.object_key AND k.state = 'good')
"""
#: What of that it can be given now: what can be read.
UNSHIPPED = f"""{LACKED}
    AND EXISTS (SELECT FROM copy k JOIN volume v USING (volume_id) WHERE k.object_key = o.object_key
                   AND k.state = 'good' AND v.absent_since IS NULL)
"""


def unshipped(database: Database, volume_ids: Sequence[str], after_key: int, objects_max: int) -> list[Row]:
    """The next objects that none of a target's volumes has, a row a good copy of each, the nearest first: object_key,
    sha256, size_bytes, tenant_id, arrived_at, study_instance_uid, copy_key, volume_id, path."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT n.*, c.copy_key, c.volume_id::text, c.path, (SELECT st.study_instance_uid FROM object o"
            "  JOIN series se USING (series_key) JOIN study st USING (study_key) WHERE o.object_key = n.object_key)"
            " FROM (SELECT o.object_key, o.sha256, o.size_bytes, o.tenant_id, o.arrived_at FROM object o"
            f"        WHERE {UNSHIPPED}"
            "        ORDER BY o.object_key LIMIT %(objects_max)s) n"
            " JOIN copy c ON c.object_key = n.object_key AND c.state = 'good' JOIN volume v USING (volume_id)"
            " ORDER BY n.object_key, v.tier, c.copy_key".encode(),
            {"volume_ids": list(volume_ids), "after": after_key, "objects_max": objects_max},
        ).fetchall()


def unshipped_of(database: Database, volume_ids: Sequence[str], sop_instance_uid: str) -> list[Row]:
    """The same of the objects with one SOP Instance UID only: nearly always one."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT n.*, c.copy_key, c.volume_id::text, c.path, '' AS study_instance_uid"
            " FROM (SELECT o.object_key, o.sha256, o.size_bytes, o.tenant_id, o.arrived_at FROM object o"
            f"        WHERE {UNSHIPPED} AND o.tenant_id = 1 AND o.sop_instance_uid = %(uid)s"
            "        ORDER BY o.object_key) n"
            " JOIN copy c ON c.object_key = n.object_key AND c.state = 'good' JOIN volume v USING (volume_id)"
            " WHERE v.tier < 4 ORDER BY n.object_key, v.tier, c.copy_key".encode(),
            {"volume_ids": list(volume_ids), "after": 0, "uid": sop_instance_uid},
        ).fetchall()


@dataclass(frozen=True)
class Turn:
    """Where a look begins, the key up to which all that arrived can be seen now, whether it is one through all, and
    whether the repository may hold objects that have no row."""

    position: int
    seen: int
    is_sweep: bool
    may_have: bool


def may_have(connection: Connection, volume_id: str) -> None:
    """Note that a repository may hold objects that have no row: it was taken up again."""
    connection.execute(
        "INSERT INTO shipping (volume_id, may_have) VALUES (%s, true) ON CONFLICT (volume_id) DO UPDATE"
        " SET may_have = true, position = 0, swept_at = NULL",
        (volume_id,),
    )


def begin_turn(database: Database, volume_id: str) -> Turn:
    """Begin a look."""
    with database.transaction() as connection:
        connection.execute("INSERT INTO shipping (volume_id) VALUES (%s) ON CONFLICT DO NOTHING", (volume_id,))
        row = connection.execute(
            "SELECT s.position, s.may_have, s.swept_at IS NULL OR s.swept_at < now() - %(age)s AS is_sweep,"
            " coalesce((SELECT o.object_key FROM object o WHERE o.object_key > s.position"
            "            AND o.arrived_at < now() - %(behind)s ORDER BY o.object_key DESC LIMIT 1), s.position) AS seen"
            " FROM shipping s WHERE s.volume_id = %(volume_id)s",
            {"volume_id": volume_id, "age": _SWEEP_AGE, "behind": _BEHIND},
        ).fetchone()
    assert row is not None
    return Turn(0 if row["is_sweep"] else row["position"], row["seen"], row["is_sweep"], row["may_have"])


def end_turn(database: Database, volume_ids: Sequence[str], seen: int, has_swept: bool, error: str) -> None:
    """Note how far a target has all: up to `seen`, or to the first object that it lacks. has_swept: all of the
    archive was looked through. A row is written only if that says something new."""
    volume_id = volume_ids[0]
    with database.transaction() as connection:
        before = (state(connection, volume_id) or {}).get("position") or 0
        given = {"volume_id": volume_id, "volume_ids": list(volume_ids), "after": before, "seen": seen}
        given |= {"has_swept": has_swept, "error": error}
        row = connection.execute(
            f"SELECT o.object_key FROM object o WHERE {LACKED} AND o.object_key <= %(seen)s"
            " ORDER BY o.object_key LIMIT 1".encode(),
            given,
        ).fetchone()
        connection.execute(
            "UPDATE shipping SET position = greatest(position, %(position)s), last_error = %(error)s,"
            " turned_at = now(), swept_at = CASE WHEN %(has_swept)s THEN now() ELSE swept_at END,"
            " may_have = may_have AND NOT %(has_swept)s"
            " WHERE volume_id = %(volume_id)s AND (position < %(position)s OR last_error <> %(error)s OR %(has_swept)s"
            " OR turned_at IS NULL OR turned_at < now() - interval '1 minute')",
            given | {"position": row["object_key"] - 1 if row else seen},
        )


def state(connection: Connection, volume_id: str) -> Row | None:
    """How far shipping to a repository is: position, swept_at, last_error, turned_at, absent_since."""
    return connection.execute(
        "SELECT s.position, s.swept_at, coalesce(s.last_error, '') AS last_error, s.turned_at, v.absent_since"
        " FROM volume v LEFT JOIN shipping s USING (volume_id) WHERE v.volume_id = %s",
        (volume_id,),
    ).fetchone()


def behind(connection: Connection, volume_ids: Sequence[str], counted_max: int) -> tuple[int, datetime | None]:
    """How many objects a target does not have, counted up to counted_max, and since when the oldest is here."""
    row = connection.execute(
        "SELECT count(*) AS objects, min(n.arrived_at) AS oldest_at FROM ("
        f"SELECT o.arrived_at FROM object o WHERE {LACKED} ORDER BY o.object_key LIMIT %(counted_max)s) n".encode(),
        {
            "volume_ids": list(volume_ids), "counted_max": counted_max,
            "after": (state(connection, volume_ids[0]) or {}).get("position") or 0,
        },
    ).fetchone()  # fmt: skip
    assert row is not None
    return row["objects"], row["oldest_at"]


def digest_of(connection: Connection, object_key: int) -> bytes | None:
    """An object's SHA-256; None if there is no such object."""
    row = connection.execute("SELECT sha256 FROM object WHERE object_key = %s", (object_key,)).fetchone()
    return bytes(row["sha256"]) if row else None
