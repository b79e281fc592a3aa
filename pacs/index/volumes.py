"""Queries about volumes and the copies on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg.errors import ForeignKeyViolation

from pacs.errors import NotFound, UsageError
from pacs.index.database import Connection, Database, Row

Kind = Literal["local", "nfs", "smb", "s3", "sftp"]
#: The tier of backup repositories: no rule moves to it, and nothing is placed there but by shipping.
REPOSITORY_TIER = 4
REPOSITORY_ROLE = f"tier{REPOSITORY_TIER}"
#: ... of the standby's volumes, which are local ones of tier 1 or 2 there (docs/operate/standby.md).
STANDBY_TIER = 5
State = Literal["active", "draining", "retired"]


@dataclass(frozen=True)
class KnownVolume:
    """A volume as the index knows it: what it is called, of what kind, and where it was last."""

    volume_id: str
    name: str
    tier: int
    location: str
    kind: Kind = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
    #: draining: nothing new is placed there; retired: it is no longer looked for.
    state: State = "active"
    #: How soon every copy there is read again [days]; None: as scrub_period_days says.
    scrub_days: float | None = None

    @property
    def role(self) -> str:
        """What its identity file says that it is for."""
        return f"tier{self.options.get('home_tier', 1) if self.tier == STANDBY_TIER else self.tier}"


_COLUMNS = "volume_id::text, name, tier, location, kind, options, state, scrub_days"


def list_volumes(database: Database, with_retired: bool = False) -> list[KnownVolume]:
    """The volumes, by tier, the oldest first."""
    condition = "true" if with_retired else "state <> 'retired'"
    with database.transaction() as connection:
        found = connection.execute(
            f"SELECT {_COLUMNS} FROM volume WHERE {condition} ORDER BY tier, created_at, volume_id".encode()
        ).fetchall()
    return [KnownVolume(**row) for row in found]


def register_volume(database: Database, volume: KnownVolume) -> None:
    """Make a volume known, or note where it is now. Several services may begin with the same one at once."""
    with database.transaction() as connection:
        # ON CONFLICT watches over one unique index: who comes at the same moment would fail on the other, the name's.
        connection.execute("LOCK TABLE volume IN SHARE ROW EXCLUSIVE MODE")
        insert_volume(connection, volume)


def insert_volume(connection: Connection, volume: KnownVolume) -> None:
    """The same in a transaction of the caller's."""
    connection.execute(
        "INSERT INTO volume (volume_id, name, tier, location, kind, options, state, scrub_days)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (volume_id) DO UPDATE SET location = excluded.location"
        " WHERE volume.location <> excluded.location",
        (
            volume.volume_id, volume.name, volume.tier, volume.location, volume.kind,
            json.dumps(dict(volume.options)), volume.state, volume.scrub_days,
        ),
    )  # fmt: skip


def take_up(connection: Connection, volume: KnownVolume) -> None:
    """Take a volume that is known into service as it is now: its name, place and options are these."""
    connection.execute(
        "UPDATE volume SET name = %s, location = %s, options = %s, kind = %s, scrub_days = %s, state = 'active'"
        " WHERE volume_id = %s",
        (
            volume.name, volume.location, json.dumps(dict(volume.options)), volume.kind, volume.scrub_days,
            volume.volume_id,
        ),
    )  # fmt: skip


def put_as_told(connection: Connection, volume: KnownVolume) -> None:
    """Have a volume as a journal tells of it, whether it is known or not."""
    insert_volume(connection, volume)
    connection.execute(
        "UPDATE volume SET name = %s, kind = %s, options = %s, state = %s, scrub_days = %s WHERE volume_id = %s",
        (
            volume.name, volume.kind, json.dumps(dict(volume.options)), volume.state, volume.scrub_days,
            volume.volume_id,
        ),
    )  # fmt: skip


def set_scrub_days(connection: Connection, volume_id: str, days: float | None) -> None:
    """Say how soon every copy on a volume is read again [days]; None: as the settings say."""
    connection.execute(
        "UPDATE volume SET scrub_days = %(days)s WHERE volume_id = %(volume_id)s"
        " AND scrub_days IS DISTINCT FROM %(days)s::double precision",
        {"days": days, "volume_id": volume_id},
    )


def give_up(connection: Connection, volume: KnownVolume) -> None:
    """Retire a repository; its name is free again. Raise UsageError as set_state does."""
    set_state(connection, volume.volume_id, "retired")
    name = f"{volume.name}-{volume.volume_id[:8]}"
    connection.execute("UPDATE volume SET name = %s WHERE volume_id = %s", (name, volume.volume_id))
    connection.execute("DELETE FROM shipping WHERE volume_id = %s", (volume.volume_id,))


def set_known_since(connection: Connection, volume_id: str, at: datetime) -> None:
    """Note since when a volume has been known: the order of a tier's volumes."""
    connection.execute("UPDATE volume SET created_at = %s WHERE volume_id = %s", (at, volume_id))


def volume_named(database: Database, name: str) -> KnownVolume:
    """A volume by its name, a retired one too. Raise NotFound."""
    for volume in list_volumes(database, with_retired=True):
        if volume.name == name:
            return volume
    raise NotFound(f"There is no volume {name}. `pacs volume list` shows them.")


def set_state(connection: Connection, volume_id: str, state: State) -> None:
    """Put a volume into a state. Raise UsageError if it is to be retired and a copy is left there, or on its way."""
    try:
        connection.execute("UPDATE volume SET state = %s WHERE volume_id = %s", (state, volume_id))
    except ForeignKeyViolation as error:
        raise UsageError(
            "Something came to the volume at this moment. It is left as it was; let it drain, and try again."
        ) from error


@dataclass(frozen=True)
class Holdings:
    """What is on a volume: copies of objects, their bytes, how many of them have no good copy on another of the
    archive's own volumes, and how many have none in a repository either."""

    copies: int
    size_bytes: int
    only_here: int
    nowhere_else: int


def holdings(connection: Connection, volume_id: str, lock: bool = False) -> Holdings:
    """What is on a volume, in whatever state its copies are; with lock, held as it is until the transaction ends."""
    if lock:
        # All copies of the objects, so that nobody takes those elsewhere away meanwhile.
        connection.execute(
            "SELECT FROM copy WHERE object_key IN (SELECT object_key FROM copy WHERE volume_id = %s)"
            " ORDER BY copy_key FOR UPDATE",
            (volume_id,),
        )
    row = connection.execute(
        "SELECT count(*) AS copies, coalesce(sum(o.size_bytes), 0)::bigint AS size_bytes,"
        " count(*) FILTER (WHERE NOT EXISTS (SELECT FROM copy other WHERE other.object_key = c.object_key"
        "   AND other.copy_key <> c.copy_key AND other.state = 'good'"
        f"  AND other.volume_id NOT IN (SELECT volume_id FROM volume WHERE tier >= {REPOSITORY_TIER}))) AS only_here,"
        " count(*) FILTER (WHERE NOT EXISTS (SELECT FROM copy other WHERE other.object_key = c.object_key"
        "   AND other.copy_key <> c.copy_key AND other.state = 'good')) AS nowhere_else"
        " FROM copy c JOIN object o USING (object_key) WHERE c.volume_id = %s".encode(),
        (volume_id,),
    ).fetchone()
    assert row is not None
    return Holdings(**row)


def forget_copies(connection: Connection, volume_id: str) -> None:
    """Forget all copies on a volume: its files stay there, and are nobody's."""
    connection.execute("DELETE FROM copy WHERE volume_id = %s", (volume_id,))


@contextmanager
def changing(database: Database, volume_id: str) -> Iterator[tuple[Connection, KnownVolume]]:
    """A transaction that holds a volume's row: nobody else changes it meanwhile."""
    with database.transaction() as connection:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM volume WHERE volume_id = %s FOR NO KEY UPDATE".encode(), (volume_id,)
        ).fetchone()
        assert row is not None
        yield connection, KnownVolume(**row)


@contextmanager
def adding(database: Database) -> Iterator[Connection]:
    """A transaction in which nobody else adds a volume."""
    with database.transaction() as connection:
        connection.execute("LOCK TABLE volume IN SHARE ROW EXCLUSIVE MODE")
        yield connection


def copies_on(connection: Connection, volume_id: str) -> list[Row]:
    """Every copy on a volume: copy_key, object_key, path, state, sha256, size_bytes."""
    return connection.execute(
        "SELECT c.copy_key, c.object_key, c.path, c.state, o.sha256, o.size_bytes"
        " FROM copy c JOIN object o USING (object_key) WHERE c.volume_id = %s",
        (volume_id,),
    ).fetchall()


def copy_at(connection: Connection, volume_id: str, path: str) -> Row | None:
    """The copy whose file is at a path, if there is one now."""
    return connection.execute(
        "SELECT copy_key, object_key, state FROM copy WHERE volume_id = %s AND path = %s", (volume_id, path)
    ).fetchone()


def add_copy(connection: Connection, object_key: int, volume_id: str, path: str) -> None:
    """Note a verified copy. One that was lost or bad on this volume before is replaced by it."""
    connection.execute(
        "INSERT INTO copy (tenant_id, object_key, volume_id, path)"
        " SELECT tenant_id, object_key, %s, %s FROM object WHERE object_key = %s"
        " ON CONFLICT (object_key, volume_id) DO UPDATE SET path = excluded.path, state = 'good', created_at = now()",
        (volume_id, path, object_key),
    )


def set_copy_state(connection: Connection, copy_key: int, state: str) -> None:
    """Set a copy's state: good, missing, bad or leaving."""
    connection.execute(
        "UPDATE copy SET state = %s, left_at = CASE WHEN %s = 'leaving' THEN now() END WHERE copy_key = %s",
        (state, state, copy_key),
    )
