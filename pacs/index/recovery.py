"""Queries of backup and restore, and PostgreSQL's own tools that read and write dumps."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pacs.errors import BackupError, PacsError, RestoreError, SettingsError
from pacs.index.database import SESSION_LOCK_CLASS, Connection, Database, Row, schema_version
from pacs.index.volumes import KnownVolume, insert_volume


@contextmanager
def snapshot(database: Database) -> Iterator[tuple[Connection, str]]:
    """A connection that sees the database as of now, and the name by which pg_dump sees the same."""
    connection = database.autocommit_connection()
    try:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = connection.execute("SELECT pg_export_snapshot() AS name").fetchone()
        assert row is not None
        yield connection, row["name"]
    finally:
        connection.close()


def objects_in(connection: Connection) -> Iterator[Row]:
    """Every object: object_key, sha256, size_bytes, and the tier and path of its nearest good copy (or None)."""
    with connection.cursor(name="objects") as cursor:
        cursor.execute(
            "SELECT o.object_key, o.sha256, o.size_bytes, c.tier, c.path FROM object o LEFT JOIN LATERAL ("
            " SELECT v.tier, x.path FROM copy x JOIN volume v USING (volume_id)"
            " WHERE x.object_key = o.object_key AND x.state = 'good' ORDER BY v.tier, x.copy_key LIMIT 1) c ON true"
            " ORDER BY o.object_key"
        )
        yield from cursor


def schema_of(connection: Connection) -> int:
    """The number of the schema that a connection sees."""
    return schema_version(connection)


def dump(database: Database, snapshot_name: str, target: Path) -> None:
    """Dump the database as of a snapshot to a file. Raise BackupError if pg_dump fails."""
    _tool(
        "pg_dump", ["--format=custom", "--no-owner", "--no-acl", f"--snapshot={snapshot_name}", f"--file={target}",
        database.conninfo], BackupError,
    )  # fmt: skip


def load(database: Database, source: Path) -> None:
    """Put a dump in the place of all that the database holds, at once or not at all. Raise RestoreError."""
    _tool(
        "pg_restore", ["--clean", "--if-exists", "--no-owner", "--no-acl", "--single-transaction",
        f"--dbname={database.conninfo}", str(source)], RestoreError,
    )  # fmt: skip


def _tool(name: str, words: list[str], error: type[PacsError]) -> None:
    result = subprocess.run(
        [_find(name), *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if result.returncode != 0:
        # Its message may quote a row, and a row is a patient's: only its first words go on.
        raise error(f"{name} failed with {result.returncode}: {result.stderr.strip().splitlines()[-1:]}")


def _find(name: str) -> str:
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = str(newest[-1]) if newest else shutil.which(name, path=os.environ.get("PATH"))
    if not found:
        raise SettingsError(
            f"{name} is not installed. Install PostgreSQL's client: `apt-get install postgresql-client`."
        )
    return found


def require_empty_and_idle(database: Database) -> None:
    """Raise RestoreError if the database holds objects, or a receiver is at work on it."""
    with database.transaction() as connection:
        held = connection.execute("SELECT EXISTS (SELECT FROM object) AS found").fetchone()
        receivers = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s) AS found",
            (SESSION_LOCK_CLASS,),
        ).fetchone()
    assert held is not None and receivers is not None
    if held["found"]:
        raise RestoreError("This appliance holds images. A restore goes onto an empty one only. Nothing was touched.")
    if receivers["found"]:
        raise RestoreError(
            "Receivers are at work. Stop them first: "
            "`systemctl stop 'pacs-dicom*.socket' 'pacs-receiver@*' pacs-worker pacs-web`."
        )


def replace_copies(database: Database, volumes: Sequence[KnownVolume], places: dict[int, str]) -> None:
    """After a restore: the copies are those that were just written.

    `volumes`: those of this appliance. `places`: object key → id of the volume its file was written to; its path is
    that of its nearest good copy in the dump.
    """
    with database.transaction() as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE restored (object_key bigint PRIMARY KEY, volume_id uuid) ON COMMIT DROP"
        )
        with connection.cursor().copy("COPY restored FROM STDIN") as copy:
            for object_key, volume_id in places.items():
                copy.write_row((object_key, volume_id))
        connection.execute(
            "CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT DISTINCT ON (c.object_key) c.tenant_id, c.object_key,"
            " c.path, r.volume_id FROM restored r JOIN copy c USING (object_key)"
            " JOIN volume v ON v.volume_id = c.volume_id"
            " WHERE c.state = 'good' ORDER BY c.object_key, v.tier, c.copy_key"
        )
        connection.execute("DELETE FROM copy")
        connection.execute("DELETE FROM volume")
        for volume in volumes:
            insert_volume(connection, volume)
        connection.execute(
            "INSERT INTO copy (tenant_id, object_key, volume_id, path)"
            " SELECT tenant_id, object_key, volume_id, path FROM kept"
        )
        connection.execute("UPDATE association SET closed_at = now() WHERE closed_at IS NULL")
        connection.execute("UPDATE receipt_mark SET object_key = 0, duplicate_key = 0")  # none is on these volumes
