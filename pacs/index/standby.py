"""Queries of a standby: the slot that keeps the log for it, how far it is behind, and whose the volumes are after a
promotion.

What is asked of a server goes over connections of its own: on a standby the index is read-only, and its schema may be
none yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from pacs.errors import StandbyError
from pacs.index.database import Connection, Database, Row
from pacs.index.server import connected
from pacs.index.volumes import REPOSITORY_TIER, STANDBY_TIER, KnownVolume

#: The replication slot of the one standby.
SLOT = "pacs_standby"


@dataclass(frozen=True)
class Stream:
    """The log's way to the standby, as the archive sees it."""

    #: Whether the standby takes the log now.
    is_streaming: bool
    #: How much of the log it has not replayed [bytes], and how long what it replayed last was on its way [s].
    behind_bytes: int | None
    replay_lag_s: float | None
    #: How much of the log is kept for it [bytes]; `lost`: too much was, and it must be made anew.
    kept_bytes: int
    slot: str


@dataclass(frozen=True)
class Receiving:
    """The log's way to the standby, as the standby sees it."""

    is_streaming: bool
    #: Seconds since the archive was last heard of; None: never.
    heard_s: float | None
    #: What came and is not replayed yet [bytes].
    unreplayed_bytes: int
    #: Age of the last change that was replayed [s]; None: none was since the start.
    replayed_s: float | None


def make_slot(conninfo: str) -> None:
    """Have the log kept for the standby from now on."""
    with connected(conninfo, _denied()) as connection:
        if not connection.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", (SLOT,)).fetchone():
            connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", (SLOT,))


def drop_slot(conninfo: str) -> None:
    """Keep no log for a standby any more. Raise StandbyError while one takes it."""
    with connected(conninfo, _denied()) as connection:
        try:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (SLOT,)
            )
        except psycopg.errors.ObjectInUse as error:
            raise StandbyError("The standby takes the log at this moment. Shut it down first.") from error


def make_slot_anew(conninfo: str) -> None:
    """Let go of what is kept for a standby that is to be copied anew, and keep from now on."""
    drop_slot(conninfo)
    make_slot(conninfo)


def stream(conninfo: str) -> Stream | None:
    """How the log goes to the standby; None if there is no slot for one. Raise DatabaseUnavailable."""
    with connected(conninfo, _denied()) as connection:
        row = connection.execute(
            "SELECT r.pid IS NOT NULL AND r.state = 'streaming' AS is_streaming, s.wal_status,"
            " pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)::bigint AS behind_bytes,"
            " extract(epoch FROM r.replay_lag)::float8 AS replay_lag_s,"
            " coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint AS kept_bytes"
            " FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid"
            " WHERE s.slot_name = %s",
            (SLOT,),
        ).fetchone()
    if row is None:
        return None
    behind = None if row["behind_bytes"] is None else max(0, row["behind_bytes"])
    return Stream(
        bool(row["is_streaming"]), behind, row["replay_lag_s"], row["kept_bytes"], row["wal_status"] or "lost"
    )


def has_replayed_all(conninfo: str) -> bool:
    """Whether the standby has replayed all that is in the log now."""
    found = stream(conninfo)
    return found is not None and found.is_streaming and found.behind_bytes == 0


def log_position(database: Database) -> str:
    """Where the log of what is committed ends now."""
    with database.transaction() as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn()::text AS lsn").fetchone()
    assert row is not None
    return str(row["lsn"])


def has_log(database: Database, position: str) -> bool:
    """Whether the standby has the log up to a position on its disk."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid"
            " WHERE s.slot_name = %s AND r.flush_lsn >= %s::pg_lsn) AS found",
            (SLOT, position),
        ).fetchone()
    return row is not None and bool(row["found"])


def receiving(conninfo: str) -> Receiving | None:
    """How the log comes to this standby; None if this server is none. Raise DatabaseUnavailable."""
    with connected(conninfo, _denied()) as connection:
        row = connection.execute(
            "SELECT pg_is_in_recovery() AS is_standby, w.status = 'streaming' AS is_streaming,"
            " extract(epoch FROM now() - w.last_msg_receipt_time)::float8 AS heard_s,"
            " coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::bigint AS unreplayed,"
            " extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8 AS replayed_s"
            " FROM (SELECT) x LEFT JOIN pg_stat_wal_receiver w ON true"
        ).fetchone()
    if row is None or not row["is_standby"]:
        return None
    return Receiving(bool(row["is_streaming"]), row["heard_s"], max(0, row["unreplayed"]), row["replayed_s"])


def server_version(conninfo: str) -> int:
    """A server's version as a number, as 170006. Raise DatabaseUnavailable."""
    with connected(conninfo, _denied()) as connection:
        row = connection.execute("SELECT current_setting('server_version_num')::int AS number").fetchone()
    assert row is not None
    return int(row["number"])


def end_recovery(conninfo: str, patience_s: int = 45) -> None:
    """Have a standby's server take changes from now on, on a timeline of its own. Done before: nothing happens."""
    with connected(conninfo, _denied()) as connection:
        row = connection.execute(
            "SELECT NOT pg_is_in_recovery() OR pg_promote(true, %s) AS is_done", (patience_s,)
        ).fetchone()
    if row is None or not row["is_done"]:
        raise StandbyError("The database did not end its recovery in time. Give the command again.")


def swap_volumes(connection: Connection, own: Sequence[KnownVolume], others: Sequence[KnownVolume]) -> None:
    """After a promotion: the standby's volumes are local ones, those of the other node are the standby's. Each as it is
    to be; the rows' copies stay as they are."""
    for volume in (*own, *others):  # names are unique, and some change places
        connection.execute("UPDATE volume SET name = volume_id::text WHERE volume_id = %s", (volume.volume_id,))
    for volume in (*own, *others):
        connection.execute(
            "UPDATE volume SET name = %s, tier = %s, kind = %s, location = %s, options = %s, state = 'active',"
            " absent_since = NULL WHERE volume_id = %s",
            (
                volume.name, volume.tier, volume.kind, volume.location, json.dumps(dict(volume.options)),
                volume.volume_id,
            ),
        )  # fmt: skip
    connection.execute("DELETE FROM shipping WHERE volume_id = ANY (%s::uuid[])", ([v.volume_id for v in own],))


def only_at_standby(database: Database, volume_ids: Sequence[str]) -> int:
    """How many objects have no good copy but on these volumes: the archive must not give them up."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT count(DISTINCT c.object_key) AS objects FROM copy c WHERE c.volume_id = ANY (%(ids)s::uuid[])"
            " AND NOT EXISTS (SELECT FROM copy k WHERE k.object_key = c.object_key AND k.state = 'good'"
            " AND k.volume_id <> ALL (%(ids)s::uuid[]))",
            {"ids": list(volume_ids)},
        ).fetchone()
    assert row is not None
    return int(row["objects"])


def not_here(database: Database, studies_max: int) -> list[Row]:
    """Studies with objects of which a promoted standby has no copy, by who sent them: calling_ae, device (its name, or
    None), study_instance_uid, objects, arrived_at (of the newest). They are on the other node's volumes only."""
    with database.transaction() as connection:
        connection.execute("SET LOCAL work_mem = '128MB'")
        return connection.execute(
            "SELECT a.calling_ae, max(dev.name) AS device, st.study_instance_uid, count(*) AS objects,"
            " max(o.arrived_at) AS arrived_at FROM object o JOIN series se USING (series_key)"
            " JOIN study st USING (study_key) LEFT JOIN association a USING (association_key)"
            " LEFT JOIN device dev ON dev.tenant_id = o.tenant_id"
            "  AND (dev.ae_title = a.calling_ae OR a.calling_ae = ANY (dev.aliases))"
            " WHERE NOT EXISTS (SELECT FROM copy c JOIN volume v USING (volume_id) WHERE c.object_key = o.object_key"
            "  AND c.state IN ('good', 'leaving') AND v.tier < %s)"
            " GROUP BY a.calling_ae, st.study_key ORDER BY max(o.arrived_at) DESC LIMIT %s",
            (STANDBY_TIER, studies_max),
        ).fetchall()


def local_volumes(volumes: Sequence[KnownVolume]) -> list[KnownVolume]:
    """Of an index's volumes those that lie on a node's own disks."""
    return [each for each in volumes if each.kind == "local" and each.tier < REPOSITORY_TIER]


def _denied() -> StandbyError:
    return StandbyError(
        "The database does not let us replicate. As its owner, in database postgres: ALTER ROLE pacs REPLICATION;"
        " GRANT pg_monitor TO pacs; GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO pacs."
    )
