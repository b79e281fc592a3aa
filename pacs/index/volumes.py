"""Queries about volumes and the copies on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from psycopg.errors import ForeignKeyViolation

from pacs.errors import NotFound, UsageError
from pacs.index.database import SESSION_LOCK_CLASS, Connection, Database, Row

Kind = Literal["local", "nfs", "smb", "s3"]
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

    @property
    def role(self) -> str:
        """What its identity file says that it is for."""
        return f"tier{self.tier}"


_COLUMNS = "volume_id::text, name, tier, location, kind, options, state"


def list_volumes(database: Database, with_retired: bool = False) -> list[KnownVolume]:
    """The volumes, by tier, the oldest first."""
    condition = "true" if with_retired else "state <> 'retired'"
    with database.transaction() as connection:
        found = connection.execute(
            f"SELECT {_COLUMNS} FROM volume WHERE {condition} ORDER BY tier, created_at, volume_id".encode()
        ).fetchall()
    return [KnownVolume(**row) for row in found]


def register_volume(database: Database, volume: KnownVolume) -> None:
    """Make a volume known, or note where it is now."""
    with database.transaction() as connection:
        insert_volume(connection, volume)


def insert_volume(connection: Connection, volume: KnownVolume) -> None:
    """The same in a transaction of the caller's."""
    connection.execute(
        "INSERT INTO volume (volume_id, name, tier, location, kind, options, state) VALUES (%s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (volume_id) DO UPDATE SET location = excluded.location"
        " WHERE volume.location <> excluded.location",
        (
            volume.volume_id, volume.name, volume.tier, volume.location, volume.kind,
            json.dumps(dict(volume.options)), volume.state,
        ),
    )  # fmt: skip


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
    """What is on a volume: copies of objects, their bytes, and how many of them have no good copy elsewhere."""

    copies: int
    size_bytes: int
    only_here: int


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
        "   AND other.copy_key <> c.copy_key AND other.state = 'good')) AS only_here"
        " FROM copy c JOIN object o USING (object_key) WHERE c.volume_id = %s",
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


def mark_leaving(connection: Connection, object_key: int, volume_id: str) -> bool:
    """Take an object's copy on a volume out of service, if a good one on another stays. True if done.

    Locks the object's copies, so that two movers never take each other's last one.
    """
    copies = connection.execute(
        "SELECT copy_key, volume_id::text, state FROM copy WHERE object_key = %s ORDER BY copy_key FOR UPDATE",
        (object_key,),
    ).fetchall()
    others = [row for row in copies if row["volume_id"] != volume_id and row["state"] == "good"]
    mine = [row for row in copies if row["volume_id"] == volume_id]
    if not others or not mine:
        return False
    set_copy_state(connection, mine[0]["copy_key"], "leaving")
    return True


def leaving_copies(connection: Connection, volume_id: str, older_than_s: float) -> list[Row]:
    """Copies on a volume (copy_key, path) that no reader was given for longer than older_than_s."""
    return connection.execute(
        "SELECT copy_key, path FROM copy WHERE volume_id = %s AND state = 'leaving'"
        " AND left_at < now() - make_interval(secs => %s) ORDER BY copy_key LIMIT 10000",
        (volume_id, older_than_s),
    ).fetchall()


def delete_copy(connection: Connection, copy_key: int) -> bool:
    """Forget a copy whose file is about to be removed, if another good one is left. True if done."""
    return (
        connection.execute(
            "DELETE FROM copy c WHERE c.copy_key = %s AND c.state = 'leaving' AND EXISTS ("
            " SELECT FROM copy o WHERE o.object_key = c.object_key AND o.copy_key <> c.copy_key AND o.state = 'good')",
            (copy_key,),
        ).rowcount
        == 1
    )


def revive_copy(connection: Connection, copy_key: int) -> None:
    """Take a copy that was leaving back into service."""
    connection.execute(
        "UPDATE copy SET state = 'good', left_at = NULL WHERE copy_key = %s AND state = 'leaving'", (copy_key,)
    )


def bytes_leaving(connection: Connection, volume_id: str) -> int:
    """Bytes of files on a volume whose copies have left it."""
    row = connection.execute(
        "SELECT coalesce(sum(o.size_bytes), 0)::bigint AS size_bytes FROM copy c JOIN object o USING (object_key)"
        " WHERE c.volume_id = %s AND c.state = 'leaving'",
        (volume_id,),
    ).fetchone()
    assert row is not None
    return int(row["size_bytes"])


SETTLED = """
    SELECT st.study_key, max(o.arrived_at) AS last_arrival, sum(o.size_bytes) AS size_bytes
      FROM study st JOIN series se USING (study_key) JOIN object o USING (series_key)
     WHERE EXISTS (SELECT FROM copy c JOIN object x USING (object_key) JOIN series y USING (series_key)
                    WHERE y.study_key = st.study_key AND c.volume_id = %(volume_id)s AND c.state = 'good')
     GROUP BY st.study_key
    HAVING max(o.arrived_at) < now() - make_interval(secs => %(settle_s)s)
       AND NOT EXISTS (
           SELECT FROM association a
             JOIN pg_locks l ON l.locktype = 'advisory' AND l.classid = %(lock_class)s AND l.objid = a.session_key
            WHERE a.closed_at IS NULL AND a.association_key = ANY (array_agg(o.association_key)))
     ORDER BY last_arrival
     LIMIT %(studies_max)s
"""


def settled_studies(connection: Connection, volume_id: str, settle_s: float, studies_max: int = 100) -> list[Row]:
    """Settled studies with bytes on a volume, oldest first: study_key, last_arrival, size_bytes."""
    return connection.execute(
        SETTLED.encode(),
        {"volume_id": volume_id, "settle_s": settle_s, "studies_max": studies_max, "lock_class": SESSION_LOCK_CLASS},
    ).fetchall()


def study_copies_on(connection: Connection, study_key: int, volume_id: str) -> list[Row]:
    """A study's good copies on a volume: object_key, path, sha256, size_bytes."""
    return connection.execute(
        "SELECT o.object_key, c.path, o.sha256, o.size_bytes FROM series se JOIN object o USING (series_key)"
        " JOIN copy c USING (object_key) WHERE se.study_key = %s AND c.volume_id = %s AND c.state = 'good'"
        " ORDER BY o.object_key",
        (study_key, volume_id),
    ).fetchall()


def has_good_copy(connection: Connection, object_key: int, volume_id: str) -> bool:
    """Whether an object has a good copy on a volume."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM copy WHERE object_key = %s AND volume_id = %s AND state = 'good') AS found",
        (object_key, volume_id),
    ).fetchone()
    assert row is not None
    return bool(row["found"])
