"""The databases of the cluster: an index that is made beside the one that is there, and put in its place.

The service's role may make databases. Names: <name> is the index; <name>_rebuild one that is being made;
<name>_before_<time> one that was replaced, kept until a person drops it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pacs import clock
from pacs.errors import DatabaseUnavailable, NotFound
from pacs.index.database import SESSION_LOCK_CLASS, Database, schema_version
from pacs.index.volumes import KnownVolume, list_volumes

_MAINTENANCE = "postgres"


@dataclass(frozen=True)
class Contents:
    """What an index holds: whether there is an object, and which volumes it knows."""

    has_objects: bool
    volumes: tuple[KnownVolume, ...]


def contents(conninfo: str) -> Contents:
    """Look into an index. Raise DataTooNew if a newer version made it, DatabaseUnavailable if it cannot be read."""
    database = Database(conninfo, connections_max=1)
    try:
        with database.transaction() as connection:
            if schema_version(connection) == 0:
                return Contents(False, ())
            row = connection.execute("SELECT EXISTS (SELECT FROM object) AS found").fetchone()
        return Contents(row is not None and bool(row["found"]), tuple(list_volumes(database)))
    except psycopg.Error as error:
        raise DatabaseUnavailable(f"The index cannot be read ({type(error).__name__}).") from error
    finally:
        database.close()


class Databases:
    """The databases beside the one that a connection string names."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self.name = str(conninfo_to_dict(conninfo)["dbname"])
        self.new_name = f"{self.name}_rebuild"

    @property
    def new_conninfo(self) -> str:
        """The connection string of the index that is being made."""
        return self.conninfo_of(self.new_name)

    def conninfo_of(self, name: str) -> str:
        """The connection string of a database of the same cluster."""
        return make_conninfo(self._conninfo, dbname=name)

    def exists(self, name: str) -> bool:
        """Whether there is a database of a name."""
        with self._connect() as connection:
            return connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None

    def make_new(self) -> None:
        """Make the database of a rebuild, unless it is there."""
        if self.exists(self.new_name):
            return
        with self._connect() as connection:
            connection.execute(
                f"CREATE DATABASE \"{self.new_name}\" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'".encode()
            )

    def drop(self, name: str) -> None:
        """Drop a database; one that is not there is no fault."""
        with self._connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())

    def replaced(self) -> list[str]:
        """The indexes that were replaced and are kept, oldest first."""
        with self._connect() as connection:
            rows = connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
        pattern = re.compile(re.escape(self.name) + r"_before_\d{8}T\d{12}")
        return [str(row[0]) for row in rows if pattern.fullmatch(str(row[0]))]

    def drop_replaced(self, name: str) -> None:
        """Drop an index that was replaced. Raise NotFound for any other."""
        if name not in self.replaced():
            raise NotFound(f"There is no replaced index {name}. `pacs index list` shows them.")
        self.drop(name)

    def users(self, name: str) -> list[str]:
        """Who is connected to a database, in words."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT DISTINCT application_name, EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid"
                " AND l.locktype = 'advisory' AND l.classid = %s) AS receives FROM pg_stat_activity a"
                " WHERE datname = %s AND backend_type = 'client backend'",
                (SESSION_LOCK_CLASS, name),
            ).fetchall()
        return sorted({"a receiver" if receives else str(words) or "somebody" for words, receives in rows})

    def end_others(self, name: str) -> None:
        """End what an earlier rebuild, that was killed, has left running on its database."""
        with self._connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = %s AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
                (name,),
            )

    def admit(self, name: str, is_admitted: bool) -> None:
        """Let nobody connect to a database any more, or let them again; one that is not there is no fault."""
        if self.exists(name):
            with self._connect() as connection:
                connection.execute(
                    f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS {str(is_admitted).lower()}'.encode()
                )

    def swap(self) -> str:
        """Put the new index in the place of the old one, at once or not at all; return the old one's new name.

        Raise DatabaseUnavailable if somebody is connected to one of them.
        """
        kept = f"{self.name}_before_{clock.now():%Y%m%dT%H%M%S%f}"
        is_there = self.exists(self.name)
        try:
            with self._connect() as connection, connection.transaction():
                if is_there:
                    connection.execute(f'ALTER DATABASE "{self.name}" RENAME TO "{kept}"'.encode())
                connection.execute(f'ALTER DATABASE "{self.new_name}" RENAME TO "{self.name}"'.encode())
        except psycopg.errors.ObjectInUse as error:
            raise DatabaseUnavailable(
                "The new index is ready, but somebody is connected to the old one. Stop all services, then run "
                "`pacs index rebuild` again: it goes on here."
            ) from error
        self.admit(kept, True)
        return kept if is_there else ""

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        try:
            return psycopg.connect(make_conninfo(self._conninfo, dbname=_MAINTENANCE), autocommit=True)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"PostgreSQL does not answer: {error}.") from error
