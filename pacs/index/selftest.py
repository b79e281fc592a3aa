"""The selftest's own tables: the whole schema once more, in a schema of its own of the same database.

What a selftest stores is in them alone: no query, count, job or backup of the archive looks there. They are made when a
selftest begins, by the same migrations, and are gone when it ends; what one leaves that was killed, the next removes.
The archive's own tables are proven apart from that: an object is stored in them and taken back before it is committed.
"""

from __future__ import annotations

from psycopg import Rollback
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pacs import clock
from pacs.index import store as store_rows
from pacs.index.database import Database, known_migrations
from pacs.index.devices import Device, insert_devices
from pacs.index.store import StoredFile
from pacs.model.record import IndexRecord

SCHEMA = "selftest"
AE_TITLE = "PACS-SELFTEST"
#: Whose associations a selftest's are. Compared by identity, as a device may have any name.
SELFTEST = Device("selftest", AE_TITLE, "127.0.0.1", 104)


def conninfo_of(conninfo: str) -> str:
    """The connection string by which the selftest's tables stand in the place of the archive's."""
    own = str(conninfo_to_dict(conninfo).get("options") or "")
    return make_conninfo(conninfo, options=f"{own} -c search_path={SCHEMA},public".strip())


def make_tables(database: Database, itself: Device) -> None:
    """Make the tables anew, with the archive's volumes and itself as the one device."""
    with database.transaction() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE".encode())
        connection.execute(f"CREATE SCHEMA {SCHEMA}".encode())
        connection.execute(f"SET LOCAL search_path = {SCHEMA}, public".encode())
        for _name, sql in known_migrations().values():
            connection.execute(sql.encode())
        columns = "tenant_id, volume_id, name, tier, kind, location, options, state, absent_since, created_at"
        connection.execute(
            f"INSERT INTO volume ({columns}) SELECT {columns} FROM public.volume ON CONFLICT DO NOTHING".encode()
        )
        insert_devices(connection, [(itself, clock.now())])


def drop_tables(database: Database) -> None:
    """Remove them, and with them every row of the selftest."""
    with database.transaction() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE".encode())


def is_made(database: Database) -> bool:
    """Whether there are any: whether a selftest runs, or one was killed."""
    with database.transaction() as connection:
        row = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL AS found", (SCHEMA,)).fetchone()
    return row is not None and bool(row["found"])


def arrived(tables: Database) -> dict[str, int]:
    """What has arrived in the selftest's tables: objects, those that came again with the same bytes, conflicts."""
    with tables.transaction() as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM object) AS objects,"
            " (SELECT count(*) FROM duplicate WHERE kind = 'same bytes') AS again,"
            " (SELECT count(*) FROM conflict) AS conflicts"
        ).fetchone()
    assert row is not None
    return dict(row)


def try_archive(database: Database, record: IndexRecord, transfer_syntax_uid: str, file: StoredFile) -> str:
    """Store an object in the archive's own tables, look at it, and take it back. Return the outcome: 'stored'.

    Nobody sees any of it, as it is never committed; only the next keys are other ones.
    """
    outcome = ""
    with database.transaction() as connection, connection.transaction():
        outcome, key = store_rows.store(connection, record, transfer_syntax_uid, file, None)
        if store_rows.object_key_of(connection, record.sop_instance_uid, file.sha256) != key:
            outcome = "not found again"
        raise Rollback
    return outcome
