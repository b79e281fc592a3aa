"""Queries for what is noted on a volume of its reading (pacs/archive/fixity_notes.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from pacs.index.database import Connection, Database
from pacs.index.retrieve import withdraw_copy


class LostCopy(NamedTuple):
    """A copy that is missing or bad: of which object, and where its file is, or was."""

    sop_instance_uid: str
    sha256: bytes
    path: str
    state: str


def dates(database: Database, volume_id: str) -> dict[str, datetime]:
    """Folder → when it was last read."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT folder, verified_at FROM fixity WHERE volume_id = %s AND verified_at IS NOT NULL ORDER BY folder",
            (volume_id,),
        ).fetchall()
    return {row["folder"]: row["verified_at"] for row in found}


def lost(database: Database, volume_id: str) -> list[LostCopy]:
    """The copies on a volume that are out of service."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT o.sop_instance_uid, o.sha256, c.path, c.state FROM copy c JOIN object o USING (object_key)"
            " WHERE c.volume_id = %s AND c.state IN ('missing', 'bad') ORDER BY c.copy_key",
            (volume_id,),
        ).fetchall()
    return [LostCopy(row["sop_instance_uid"], bytes(row["sha256"]), row["path"], row["state"]) for row in found]


def is_known(database: Database, volume_id: str) -> bool:
    """Whether the index knows of a reading of the volume."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT FROM fixity WHERE volume_id = %s AND verified_at IS NOT NULL LIMIT 1", (volume_id,)
        ).fetchone()
    return row is not None


def take_in(
    database: Database, volume_id: str, folders: Mapping[str, datetime], lost_copies: Sequence[LostCopy]
) -> int:
    """Note when folders were read, to be counted by the next scrub, and which copies are lost; return how many of
    them are out of service now and were not before. All of it or nothing."""
    with database.transaction() as connection:
        taken_out = sum(_take_out(connection, volume_id, each) for each in lost_copies)
        connection.execute(
            "INSERT INTO fixity (volume_id, folder, copies, size_bytes, oldest_at, sized_at, verified_at)"
            " SELECT %s, n.folder, 0, 0, n.at, '-infinity', n.at"
            " FROM unnest(%s::text[], %s::timestamptz[]) n (folder, at)"
            " ON CONFLICT (volume_id, folder) DO UPDATE SET verified_at = excluded.verified_at",
            (volume_id, list(folders), list(folders.values())),
        )
    return taken_out


def _take_out(connection: Connection, volume_id: str, lost_copy: LostCopy) -> bool:
    """The copy with this path; or a new one, where the object is known and has none on the volume: the repair makes
    its file anew. What is in service under another path was made anew since, and stays."""
    key = connection.execute(
        "SELECT copy_key FROM copy WHERE volume_id = %s AND path = %s", (volume_id, lost_copy.path)
    ).fetchone()
    if key is None:
        key = connection.execute(
            "INSERT INTO copy (tenant_id, object_key, volume_id, path) SELECT tenant_id, object_key, %s, %s FROM object"
            " WHERE sop_instance_uid = %s AND sha256 = %s ON CONFLICT DO NOTHING RETURNING copy_key",
            (volume_id, lost_copy.path, lost_copy.sop_instance_uid, lost_copy.sha256),
        ).fetchone()
    return key is not None and withdraw_copy(connection, key["copy_key"], lost_copy.path, lost_copy.state)
