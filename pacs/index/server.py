"""What backup and recovery points need of the database's server, apart from the index: where its files are, a named
place in its log, whether it gets its log archived.

They are asked of the database `postgres`, where the role pacs was given the right to (rights.py): the
index's own is made anew by a rebuild, and would lose it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from pacs.errors import DatabaseUnavailable, PacsError, SettingsError
from pacs.index.database import CONNECT_TIMEOUT_S, Connection, Database
from pacs.index.rights import STATEMENTS


@dataclass(frozen=True)
class ServerPlace:
    """Where a cluster's files are, and how its server is reached."""

    data_directory: Path
    socket_folder: str
    port: int
    user: str


@dataclass(frozen=True)
class LogPosition:
    """A named place in the log: as PostgreSQL writes it (0/3000028), and the segment's file that holds it."""

    name: str
    lsn: str
    segment: str

    @property
    def timeline(self) -> int:
        """The number of its timeline."""
        return int(self.segment[:8], 16)


@dataclass(frozen=True)
class Archiver:
    """How archiving of the log goes. failed_at: since when it fails, None if it doesn't."""

    failed_at: datetime | None
    last_segment: str | None


def server_place(conninfo: str) -> ServerPlace:
    """Where the server of a connection string is. Raise DatabaseUnavailable."""
    with connected(conninfo, _denied()) as connection:
        row = connection.execute("SELECT current_setting('data_directory') AS folder").fetchone()
        assert row is not None
        info = connection.info
        return ServerPlace(Path(row["folder"]), info.host, info.port, info.user)


def name_position(conninfo: str, name: str) -> LogPosition:
    """Give the log's place of now a name, and have its segment ended, so that it is archived soon.

    All that was committed before is in the log up to there.
    """
    with connected(conninfo, _denied()) as connection:
        row = connection.execute(
            "WITH named AS MATERIALIZED (SELECT pg_create_restore_point(%s) AS lsn)"
            " SELECT lsn::text AS lsn, pg_walfile_name(lsn) AS segment FROM named",
            (name,),
        ).fetchone()
        connection.execute("SELECT pg_switch_wal()")
    assert row is not None
    return LogPosition(name, row["lsn"], row["segment"])


def log_end(database: Database) -> str:
    """Where the log ends now, as PostgreSQL writes it. The same as before: nothing has changed since."""
    with database.transaction() as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn()::text AS lsn").fetchone()
    assert row is not None
    return str(row["lsn"])


def archiver(database: Database) -> Archiver:
    """How archiving of the log goes."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT last_archived_wal, CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity')"
            " THEN last_failed_time END AS failed_at FROM pg_stat_archiver"
        ).fetchone()
    assert row is not None
    return Archiver(row["failed_at"], row["last_archived_wal"])


@dataclass(frozen=True)
class ServerHealth:
    """How the server is: what makes it stop, or lose something, if nobody looks."""

    connections: int
    connections_max: int
    #: Pages whose checksum did not fit, in all databases, since the server's statistics began.
    checksum_failures: int
    #: Transactions since the oldest that is not frozen: at 2,147 million the server stops.
    oldest_transaction: int
    size_bytes: int


def server_health(database: Database) -> ServerHealth:
    """Ask it. Costs no scan."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,"
            " current_setting('max_connections')::integer AS connections_max,"
            " (SELECT coalesce(sum(checksum_failures), 0)::bigint FROM pg_stat_database) AS checksum_failures,"
            " (SELECT max(age(datfrozenxid)) FROM pg_database) AS oldest_transaction,"
            " pg_database_size(current_database()) AS size_bytes"
        ).fetchone()
    assert row is not None
    return ServerHealth(**row)


def _denied() -> SettingsError:
    return SettingsError(
        "The database does not let us name places in its log. As its owner, in database postgres: "
        f"{'; '.join(STATEMENTS)}."
    )


@contextmanager
def connected(conninfo: str, denied: PacsError) -> Iterator[Connection]:
    """A connection of its own to the server. Raise `denied` where the role may not, DatabaseUnavailable."""
    try:
        with psycopg.connect(
            make_conninfo(conninfo, dbname="postgres", connect_timeout=CONNECT_TIMEOUT_S),
            autocommit=True, row_factory=dict_row,
        ) as connection:  # fmt: skip
            yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        raise denied from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            f"The database does not answer ({type(error).__name__}). See `systemctl status postgresql@17-main`."
        ) from error
