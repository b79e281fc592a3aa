"""The connection to PostgreSQL: pool, migrations, and errors in the words of the error tree.

Migrations are the files `migrations/NNNN_name.sql`, applied in their order, each in one transaction with its row in
schema_migration, under an advisory lock: two processes that start at once apply each of them once. A database that
was migrated further than this version knows is refused before anything is written to it.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from pacs.errors import DatabaseUnavailable, DataTooNew

log = logging.getLogger(__name__)

Row = dict[str, Any]
Connection = psycopg.Connection[Row]

#: First key of a receiver session's advisory lock.
SESSION_LOCK_CLASS = 0x7061
_MIGRATION_LOCK = 0x70616373  # "pacs"
CONNECT_TIMEOUT_S = 5


class Database:
    """A pool of connections to the index. One per process; close it at the end."""

    def __init__(self, conninfo: str, connections_max: int = 8) -> None:
        self.conninfo = conninfo
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            conninfo,
            connection_class=psycopg.Connection[Row],
            kwargs={
                "row_factory": dict_row,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "pacs",
                "options": "-c jit=off",  # compiling takes longer than any of our statements
            },
            min_size=0,
            max_size=connections_max,
            timeout=CONNECT_TIMEOUT_S,
            check=ConnectionPool.check_connection,
            open=True,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction that is committed when the block ends, rolled back when it raises.

        Raise DatabaseUnavailable if there is no connection to be had, or it breaks. If it breaks in the commit the
        outcome is unknown.
        """
        try:
            with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, PoolTimeout, psycopg.errors.AdminShutdown) as error:
            raise DatabaseUnavailable(
                f"The database does not answer ({type(error).__name__}). See `systemctl status postgresql@17-main`."
            ) from error

    def autocommit_connection(self) -> Connection:
        """A connection of its own, for what a pool's can't do: session locks, exported snapshots."""
        try:
            return psycopg.Connection.connect(
                self.conninfo, autocommit=True, row_factory=dict_row, connect_timeout=CONNECT_TIMEOUT_S
            )
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"The database does not answer: {error}.") from error


class Session:
    """One connection that a thread keeps, each statement its own transaction: the receive path's one round trip.

    Not for use by several threads.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """The connection, made anew if it is gone. Raise DatabaseUnavailable if there is none to be had, or it breaks
        in the block; then the outcome of its last statement is unknown."""
        connection = self._living()
        try:
            yield connection
        except psycopg.OperationalError as error:
            self.close()
            raise DatabaseUnavailable(
                f"The database does not answer ({type(error).__name__}). See `systemctl status postgresql@17-main`."
            ) from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _living(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            # A connection at rest that has something to read has lost its server. This costs no round trip.
            if not select.select([self._connection.fileno()], [], [], 0)[0]:
                return self._connection
            self.close()
        self._connection = self._database.autocommit_connection()
        self._connection.prepare_threshold = 0
        return self._connection


def known_migrations() -> dict[int, tuple[str, str]]:
    """Number → (file name, SQL) of every migration that this version has."""
    found = {}
    for entry in sorted(resources.files("pacs.index").joinpath("migrations").iterdir(), key=lambda path: path.name):
        if entry.name.endswith(".sql"):
            found[int(entry.name[:4])] = (entry.name, entry.read_text("utf-8"))
    return found


def schema_version(connection: Connection) -> int:
    """The number of the last migration that the database has had; 0 for an empty one.

    Raise DataTooNew if this version does not know it.
    """
    exists = connection.execute("SELECT to_regclass('schema_migration') AS name").fetchone()
    if exists is None or exists["name"] is None:
        return 0
    row = connection.execute("SELECT coalesce(max(number), 0) AS number FROM schema_migration").fetchone()
    number = int(row["number"]) if row else 0
    newest = max(known_migrations())
    if number > newest:
        raise DataTooNew(
            f"The database has schema {number}; this version knows {newest}. Nothing was touched. "
            "Boot the image that wrote it, or a newer one."
        )
    return number


def migrate(database: Database) -> list[str]:
    """Bring the database's schema up to this version; return the names of the migrations applied.

    Raise DataTooNew if it is further already.
    """
    applied = []
    for number, (name, sql) in known_migrations().items():
        with database.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            if number <= schema_version(connection):
                continue
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migration ("
                " number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            connection.execute(sql.encode())
            connection.execute("INSERT INTO schema_migration (number, name) VALUES (%s, %s)", (number, name))
        applied.append(name)
        log.info("migration applied", extra={"migration": name})
    return applied


def require_current(database: Database) -> None:
    """Raise DataTooNew or DatabaseUnavailable unless the database has exactly this version's schema."""
    with database.transaction() as connection:
        if schema_version(connection) < max(known_migrations()):
            raise DatabaseUnavailable("The database's schema is older than this version. Run `pacs database migrate`.")
