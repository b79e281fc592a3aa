"""How large the index is, and how its server is: figures, and names of our own tables; nothing that is in them."""

from __future__ import annotations

from typing import Any

from pacs.index.database import Database, Row

_SETTINGS = (
    "max_wal_size", "shared_buffers", "work_mem", "maintenance_work_mem", "effective_cache_size", "max_connections",
    "archive_mode", "archive_timeout", "wal_level", "synchronous_commit", "fsync", "full_page_writes", "data_checksums",
    "autovacuum", "wal_segment_size",
)  # fmt: skip


def table_sizes(database: Database) -> list[Row]:
    """The tables, the largest first: table_name, rows (as last counted by PostgreSQL), dead_rows, size_bytes."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT c.relname AS table_name, c.reltuples::bigint AS rows, coalesce(s.n_dead_tup, 0) AS dead_rows,"
            " pg_total_relation_size(c.oid) AS size_bytes"
            " FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid"
            " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY size_bytes DESC, c.relname"
        ).fetchall()


def server_facts(database: Database) -> dict[str, Any]:
    """The server: its version, this database's size, connections by state, a few settings, migrations."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT current_setting('server_version') AS server_version,"
            " pg_database_size(current_database()) AS size_bytes, pg_is_in_recovery() AS is_in_recovery,"
            " pg_postmaster_start_time() AS started_at"
        ).fetchone()
        states = connection.execute(
            "SELECT coalesce(state, 'none') AS state, count(*) AS connections FROM pg_stat_activity"
            " GROUP BY 1 ORDER BY 1"
        ).fetchall()
        settings = connection.execute(
            "SELECT name, setting, unit FROM pg_settings WHERE name = ANY(%s) ORDER BY name", (list(_SETTINGS),)
        ).fetchall()
        archiver = connection.execute(
            "SELECT archived_count, failed_count, last_archived_time, last_failed_time FROM pg_stat_archiver"
        ).fetchone()
    assert row is not None
    return {
        **row,
        "connections": {each["state"]: each["connections"] for each in states},
        "settings": {each["name"]: f"{each['setting']} {each['unit'] or ''}".strip() for each in settings},
        "archiver": archiver,
    }
