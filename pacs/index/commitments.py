"""Queries about storage commitment: what devices asked for, how far each answer is, and what it is checked against."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pacs.errors import NotFound
from pacs.index.database import Database, Row

#: (SOP class UID, SOP instance UID) of an object that a request names.
Reference = tuple[str, str]


@dataclass(frozen=True)
class Commitment:
    """A request that is not answered yet. reasons stands beside referenced: 0, or a failure reason; None: not read."""

    key: int
    transaction_uid: str
    calling_ae: str
    referenced: list[Reference]
    is_duplicate: bool
    reasons: list[int] | None
    verified_age_s: float
    attempts: int


_COLUMNS = (
    "commitment_key, transaction_uid, calling_ae, referenced, is_duplicate, reasons, attempts,"
    " extract(epoch FROM now() - coalesce(verified_at, now()))::float8 AS verified_age_s"
)


def accept(
    database: Database,
    transaction_uid: str,
    calling_ae: str,
    peer: str,
    referenced: Sequence[Reference],
    others_s: float,
) -> int:
    """Note a request durably; return its key. Other receivers leave it alone for others_s.

    The same request again (the device did not hear our answer) is the one that is here, due anew. The same
    transaction UID for other objects is a request of its own, marked as a duplicate.
    """
    values = {
        "uid": transaction_uid,
        "ae": calling_ae,
        "peer": peer,
        "referenced": json.dumps(referenced),
        "others_s": others_s,
    }
    insert = (
        "INSERT INTO commitment (transaction_uid, calling_ae, peer, referenced, is_duplicate, next_try_at)"
        " VALUES (%(uid)s, %(ae)s, %(peer)s, %(referenced)s, {}, now() + make_interval(secs => %(others_s)s))"
        " ON CONFLICT DO NOTHING RETURNING commitment_key"
    )
    with database.transaction() as connection:
        row = connection.execute(insert.format("false").encode(), values).fetchone()
        row = (
            row
            or connection.execute(
                "UPDATE commitment SET state = 'open', reasons = NULL, attempts = 0, last_error = '',"
                "  next_try_at = now() + make_interval(secs => %(others_s)s)"
                " WHERE transaction_uid = %(uid)s AND calling_ae = %(ae)s AND NOT is_duplicate"
                "   AND referenced = %(referenced)s::jsonb RETURNING commitment_key",
                values,
            ).fetchone()
        )
        row = row or connection.execute(insert.format("true").encode(), values).fetchone()
    assert row is not None
    return int(row["commitment_key"])


def claim(database: Database, lease_s: float, key: int | None = None) -> Commitment | None:
    """Take the open request with a key, or the one that is due longest; nobody else takes it for lease_s."""
    chosen = "commitment_key = %(key)s" if key is not None else "next_try_at <= now()"
    with database.transaction() as connection:
        row = connection.execute(
            (
                "UPDATE commitment SET next_try_at = now() + make_interval(secs => %(lease_s)s)"
                " WHERE commitment_key = (SELECT commitment_key FROM commitment WHERE state = 'open'"
                f" AND {chosen} ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING {_COLUMNS}"
            ).encode(),
            {"lease_s": lease_s, "key": key},
        ).fetchone()
    if row is None:
        return None
    row["referenced"] = [(sop_class, instance) for sop_class, instance in row["referenced"]]
    return Commitment(key=row.pop("commitment_key"), **row)


def hold(database: Database, key: int, lease_s: float) -> None:
    """Keep a request that was claimed for lease_s more."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE commitment SET next_try_at = now() + make_interval(secs => %s) WHERE commitment_key = %s",
            (lease_s, key),
        )


def note_verified(database: Database, key: int, reasons: Sequence[int]) -> None:
    """Note what reading the objects again has shown."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE commitment SET reasons = %s, verified_at = now() WHERE commitment_key = %s",
            (json.dumps(reasons), key),
        )


def note_reported(database: Database, key: int) -> None:
    """Note that the device has our answer. Others that wait for the same device are due at once: it is there."""
    with database.transaction() as connection:
        row = connection.execute(
            "UPDATE commitment SET state = 'reported', reported_at = now(), last_error = ''"
            " WHERE commitment_key = %s AND state <> 'reported' RETURNING calling_ae",
            (key,),
        ).fetchone()
        if row is not None:
            connection.execute(
                "UPDATE commitment SET next_try_at = now()"
                " WHERE calling_ae = %s AND state = 'open' AND last_error <> ''",
                (row["calling_ae"],),
            )


def postpone(database: Database, key: int, error: str, after_s: float, give_up_after_s: float) -> bool:
    """Note why a request could not be answered, and try again after_s from now; True if it is given up instead."""
    with database.transaction() as connection:
        row = connection.execute(
            "UPDATE commitment SET attempts = attempts + 1, last_error = %(error)s,"
            "  next_try_at = now() + make_interval(secs => %(after_s)s),"
            "  state = CASE WHEN requested_at + make_interval(secs => %(most_s)s) < now()"
            "   THEN 'given up' ELSE state END"
            " WHERE commitment_key = %(key)s AND state = 'open' RETURNING state",
            {"key": key, "error": error, "after_s": after_s, "most_s": give_up_after_s},
        ).fetchone()
    return row is not None and row["state"] == "given up"


def postpone_device(database: Database, calling_ae: str, error: str, after_s: float) -> None:
    """A device cannot be reached: its other requests wait with the one that found it out, so that they hold up none."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE commitment SET last_error = %s, next_try_at = now() + make_interval(secs => %s)"
            " WHERE calling_ae = %s AND state = 'open' AND next_try_at <= now()",
            (error, after_s, calling_ae),
        )


def list_commitments(database: Database, rows_max: int) -> list[Row]:
    """The newest requests, open ones first: for `pacs commitment list`."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT commitment_key AS key, transaction_uid, calling_ae, state,"
            " jsonb_array_length(referenced) AS objects,"
            " CASE WHEN is_duplicate THEN jsonb_array_length(referenced) WHEN reasons IS NOT NULL THEN"
            "  (SELECT count(*) FROM jsonb_array_elements(reasons) r WHERE r <> '0'::jsonb) END AS failed,"
            " attempts, last_error, requested_at, next_try_at, reported_at"
            " FROM commitment ORDER BY state = 'reported', commitment_key DESC LIMIT %s",
            (rows_max,),
        ).fetchall()


def retry(database: Database, key: int) -> None:
    """Make a request due at once, read anew. Raise NotFound."""
    with database.transaction() as connection:
        found = connection.execute(
            "UPDATE commitment SET state = 'open', reasons = NULL, attempts = 0, last_error = '', requested_at = now(),"
            " next_try_at = now() WHERE commitment_key = %s",
            (key,),
        ).rowcount
    if not found:
        raise NotFound(f"There is no commitment {key}. `pacs commitment list` shows them.")


def drop(database: Database, key: int) -> None:
    """Forget a request: the device gets no answer. Raise NotFound."""
    with database.transaction() as connection:
        if not connection.execute("DELETE FROM commitment WHERE commitment_key = %s", (key,)).rowcount:
            raise NotFound(f"There is no commitment {key}. `pacs commitment list` shows them.")


def forget_reported(database: Database, older_than_s: float) -> int:
    """Forget what was answered longer ago than older_than_s; return how many."""
    with database.transaction() as connection:
        return connection.execute(
            "DELETE FROM commitment WHERE state = 'reported' AND reported_at < now() - make_interval(secs => %s)",
            (older_than_s,),
        ).rowcount


def late(database: Database, late_after_s: float) -> list[Row]:
    """Devices (calling_ae) that wait: how many answers are late (`waiting`), how many were given up (`given_up`)."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT calling_ae, count(*) FILTER (WHERE state = 'open') AS waiting,"
            " count(*) FILTER (WHERE state = 'given up') AS given_up FROM commitment"
            " WHERE state = 'given up' OR (state = 'open' AND requested_at < now() - make_interval(secs => %s))"
            " GROUP BY calling_ae ORDER BY calling_ae",
            (late_after_s,),
        ).fetchall()


def objects_named(database: Database, sop_instance_uids: Collection[str]) -> list[Row]:
    """Every object that has one of these UIDs, current or not: sop_instance_uid, sop_class_uid, object_key, sha256."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT sop_instance_uid, sop_class_uid, object_key, sha256 FROM object WHERE sop_instance_uid = ANY(%s)",
            (list(sop_instance_uids),),
        ).fetchall()


def good_copies_of(database: Database, object_key: int) -> list[Row]:
    """An object's good copies, nearest tier first: copy_key, volume_id, path."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT c.copy_key, c.volume_id::text, c.path FROM copy c JOIN volume v USING (volume_id)"
            " WHERE c.object_key = %s AND c.state = 'good' ORDER BY v.tier",
            (object_key,),
        ).fetchall()


def take_out_of_service(database: Database, copy_key: int, path: str, state: str) -> bool:
    """Set a good copy missing or bad, unless it has moved meanwhile. True if done."""
    with database.transaction() as connection:
        return (
            connection.execute(
                "UPDATE copy SET state = %s WHERE copy_key = %s AND path = %s AND state = 'good'",
                (state, copy_key, path),
            ).rowcount
            == 1
        )
