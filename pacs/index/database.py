"""The connection to PostgreSQL: pool, migrations, and errors in the words of the error tree.

Migrations are the files `migrations/NNNN_name.sql`, applied in their order, each in one transaction with its row in
schema_migration, under an advisory lock: two processes that start at once apply each of them once. A database that
was migrated further than this version knows is refused before anything is written to it.
"""

from __future__ import annotations

import contextlib
import logging
import select
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from pacs import clock
from pacs.errors import DatabaseUnavailable, DataTooNew, VolumeMissing

log = logging.getLogger(__name__)

Row = dict[str, Any]
Connection = psycopg.Connection[Row]

#: First key of a receiver session's advisory lock.
SESSION_LOCK_CLASS = 0x7061
_MIGRATION_LOCK = 0x70616373  # "pacs"
CONNECT_TIMEOUT_S = 5
#: The most connections that wait to be lent again.
RESTING_MAX = 64


class _BoundedConnection(psycopg.Connection[Row]):
    """A connection whose server may be silent for so long and no longer, then it counts as lost.

    The server ends a statement itself after statement_timeout (a lock that is not given). A server that is stopped, or
    hangs in its disk, can't: then this ends the wait.
    """

    silence_s_max: float | None = None

    def wait(self, gen: Generator[Any, Any, Any], *words: Any, **named: Any) -> Any:
        """psycopg's own, with an end."""
        if self.silence_s_max is None:
            return super().wait(gen, *words, **named)
        return super().wait(self._bounded(gen, clock.monotonic_s() + self.silence_s_max), *words, **named)

    def _bounded(self, gen: Generator[Any, Any, Any], ends_s: float) -> Generator[Any, Any, Any]:
        # psycopg resumes its generators several times a second, with a false value while nothing has come.
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and clock.monotonic_s() > ends_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server has been silent for too long")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


class Database:
    """A pool of connections to the index. One per process; close it at the end."""

    def __init__(self, conninfo: str, connections_max: int = 8, timeout_s: float | None = None) -> None:
        """timeout_s is how long a statement may take; None: as long as it likes."""
        self.conninfo = conninfo
        self._resting: list[Connection] = []
        self._options: dict[str, Any] = {"row_factory": dict_row, "connect_timeout": CONNECT_TIMEOUT_S}
        own = conninfo_to_dict(conninfo).get("options") or ""
        self._options["options"] = f"{own} -c jit=off".strip()  # compiling takes longer than any of our statements
        if timeout_s is not None:
            self._options["options"] += f" -c statement_timeout={int(timeout_s * 1000)}"
        # The server's own end of a statement comes first, as it leaves no doubt about the outcome.

        class Bounded(_BoundedConnection):
            silence_s_max = None if timeout_s is None else 1.5 * timeout_s

        self._class = Bounded
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            conninfo,
            connection_class=self._class,
            kwargs={**self._options, "application_name": "pacs"},
            min_size=0,
            max_size=connections_max,
            timeout=CONNECT_TIMEOUT_S,
            # A try to connect that waits grows its waits with the outage, and holds the next one up: minutes after
            # the database is back.
            reconnect_timeout=CONNECT_TIMEOUT_S,
            check=ConnectionPool.check_connection,
            open=True,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        while self._resting:
            self._resting.pop().close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction that is committed when the block ends, rolled back when it raises.

        Raise DatabaseUnavailable if there is no connection to be had, or it breaks. If it breaks in the commit the
        outcome is unknown. Raise VolumeMissing if a copy was to be noted on a volume that was retired meanwhile.
        """
        try:
            with self._pool.connection() as connection:
                yield connection
        except psycopg.errors.ForeignKeyViolation as error:
            if error.diag.constraint_name != "copy_volume_id_fkey":
                raise
            raise VolumeMissing("The volume was retired while a copy came to it. It goes elsewhere.") from error
        except (psycopg.OperationalError, PoolTimeout, psycopg.errors.AdminShutdown) as error:
            raise DatabaseUnavailable(
                f"The database does not answer ({type(error).__name__}). See `systemctl status postgresql@17-main`."
            ) from error

    def autocommit_connection(self) -> Connection:
        """A connection of its own, for what a pool's can't do: session locks, exported snapshots."""
        try:
            connection: Connection = self._class.connect(self.conninfo, autocommit=True, **self._options)
            return connection
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"The database does not answer: {error}.") from error

    @contextmanager
    def lent_connection(self) -> Iterator[Connection]:
        """A connection of which each statement is its own transaction: the one round trip of the receive path, and of a
        query.

        It is the one that was given back last, whose server is the warmest: any number of associations share as many
        as are at work at once. Raise DatabaseUnavailable if there is none to be had, or it breaks in the block; then
        the outcome of its last statement is unknown.
        """
        connection = self._living_connection()
        try:
            yield connection
        except psycopg.OperationalError as error:
            connection.close()
            raise DatabaseUnavailable(
                f"The database does not answer ({type(error).__name__}). See `systemctl status postgresql@17-main`."
            ) from error
        finally:
            is_idle = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
            if is_idle and len(self._resting) < RESTING_MAX:
                self._resting.append(connection)
            else:
                connection.close()

    def _living_connection(self) -> Connection:
        """One at rest, which knows its statements already, or a new one."""
        while self._resting:
            with contextlib.suppress(IndexError):  # another thread took it
                connection = self._resting.pop()
                if _is_alive(connection):
                    return connection
                connection.close()
        connection = self.autocommit_connection()
        connection.prepare_threshold = 0
        return connection


def _is_alive(connection: Connection) -> bool:
    """Whether a connection at rest still has its server. This costs no round trip."""
    if connection.closed:
        return False
    has_input = select.poll()  # select itself knows file numbers below 1024 only
    has_input.register(connection.fileno(), select.POLLIN)
    return not has_input.poll(0)  # what it has to say, unasked, is that it is gone


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
            _require_writable(connection)
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


def _require_writable(connection: Connection) -> None:
    row = connection.execute("SELECT pg_is_in_recovery() AS is_reading").fetchone()
    if row is not None and row["is_reading"]:
        raise DatabaseUnavailable("The database has not ended its recovery yet. Wait a moment.")


def require_current(database: Database) -> None:
    """Raise DataTooNew or DatabaseUnavailable unless the database has exactly this version's schema."""
    with database.transaction() as connection:
        if schema_version(connection) < max(known_migrations()):
            raise DatabaseUnavailable("The database's schema is older than this version. Run `pacs database migrate`.")
