"""A migrated, empty index: one database a module, emptied before each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from pacs.cli.cluster import Cluster
from pacs.index import database as index
from pacs.index.database import Database


@pytest.fixture(scope="module")
def module_database(cluster: Cluster) -> Iterator[Database]:
    """An index with this version's schema that a module's tests share."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    base = f"host={cluster.sockets} user=pacs"
    with psycopg.connect(f"{base} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    opened = Database(f"{base} dbname={name}", connections_max=12)
    index.migrate(opened)
    yield opened
    opened.close()
    with psycopg.connect(f"{base} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def database(module_database: Database) -> Database:
    """The module's index, emptied."""
    with module_database.transaction() as connection:
        # Small tables: DELETE is many times faster than TRUNCATE, which makes new files and fsyncs them.
        for table in ("run", "refusal", "commitment", "conflict", "duplicate", "copy", "object", "series", "study",
                      "patient", "association", "device", "volume", "stored_syntax", "tier_rule"):  # fmt: skip
            connection.execute(f"DELETE FROM {table}".encode())
    return module_database
