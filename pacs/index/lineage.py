"""Queries of the lineage: the mark that the database carries; what is put right after something went back in time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pacs.index.database import Connection, Database
from pacs.index.store import DEFAULT_TENANT
from pacs.index.volumes import REPOSITORY_TIER


def get_mark(database: Database) -> dict[str, Any] | None:
    """The values of the mark that the database carries; None if it has none: a new one, or one that was rebuilt."""
    with database.transaction() as connection:
        row = connection.execute("SELECT mark FROM lineage WHERE tenant_id = %s", (DEFAULT_TENANT,)).fetchone()
    return row["mark"] if row else None


def put_mark(database: Database, values: Mapping[str, Any]) -> None:
    """Write the mark that the database carries."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO lineage (tenant_id, mark) VALUES (%s, %s)"
            " ON CONFLICT (tenant_id) DO UPDATE SET mark = excluded.mark",
            (DEFAULT_TENANT, json.dumps(dict(values))),
        )


def timeline(database: Database) -> int:
    """The timeline that the database's log is on: the first eight digits of a segment's name."""
    with database.transaction() as connection:
        row = connection.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS hex").fetchone()
    assert row is not None
    return int(row["hex"], 16)


def add_further_copy(
    connection: Connection, sop_instance_uid: str, sha256: bytes, volume_id: str, path: str
) -> int | None:
    """Take a whole file without a row for one copy more of its object; return the object's key. None if that has a copy
    on the volume already, or is not known."""
    row = connection.execute(
        "INSERT INTO copy (tenant_id, object_key, volume_id, path) SELECT o.tenant_id, o.object_key, %s, %s"
        " FROM object o WHERE o.tenant_id = %s AND o.sop_instance_uid = %s AND o.sha256 = %s"
        " ON CONFLICT DO NOTHING RETURNING object_key",
        (volume_id, path, DEFAULT_TENANT, sop_instance_uid, sha256),
    ).fetchone()
    return int(row["object_key"]) if row else None


def forget_moved(connection: Connection, object_keys: Sequence[int]) -> int:
    """Forget the copies of objects whose files are gone and that have a good copy on another volume than a repository:
    they had moved. Return how many."""
    return connection.execute(
        "DELETE FROM copy c WHERE c.object_key = ANY (%s) AND c.state = 'missing' AND EXISTS (SELECT FROM copy x"
        " JOIN volume v USING (volume_id) WHERE x.object_key = c.object_key AND x.state = 'good' AND v.tier < %s)",
        (list(object_keys), REPOSITORY_TIER),
    ).rowcount


def association_of(connection: Connection, sender: Mapping[str, Any]) -> int:
    """The key of the association that a receipt names, which is made again if the index knows it no longer. It is over:
    no receiver has session 0."""
    values = {**sender, "closed": sender["closed"] or sender["opened"]}
    row = connection.execute(
        "SELECT association_key FROM association WHERE calling_ae = %(ae)s AND peer = %(peer)s"
        " AND opened_at = %(opened)s ORDER BY association_key LIMIT 1",
        values,
    ).fetchone()
    if row is None:
        row = connection.execute(
            "INSERT INTO association (session_key, calling_ae, peer, user_name, default_character_set, opened_at,"
            " closed_at) VALUES (0, %(ae)s, %(peer)s, %(user)s, %(character_set)s, %(opened)s, %(closed)s)"
            " RETURNING association_key",
            values,
        ).fetchone()
    assert row is not None
    return int(row["association_key"])


def set_arrival(connection: Connection, object_key: int, arrived_at: str, association_key: int | None) -> None:
    """When an object that was indexed again had come, and with which association."""
    connection.execute(
        "UPDATE object SET arrived_at = %s, association_key = %s WHERE object_key = %s",
        (arrived_at, association_key, object_key),
    )


def forget_named(connection: Connection, table: str, name: str) -> None:
    """Forget a device or a tier's rule, if it is there, to write it as the journal says."""
    assert table in ("device", "tier_rule")
    connection.execute(f"DELETE FROM {table} WHERE tenant_id = %s AND name = %s".encode(), (DEFAULT_TENANT, name))
