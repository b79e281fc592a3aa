"""Queries of objects on their way between volumes: who works on a study, new copies, copies that leave.

A copy leaves only while another good one, on a volume that is here, stays: all of an object's copies are locked while
that is decided, in the order of their keys, so that two who move, scrub or repair never take each other's last one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from pacs.errors import DatabaseUnavailable
from pacs.index.database import Connection, Database, Row
from pacs.index.volumes import REPOSITORY_TIER

#: First key of a study's advisory lock: whoever holds it moves its objects.
STUDY_LOCK_CLASS = 0x7074
_STUDY_LOCK_KEYS = 1 << 31


class StudyLocks:
    """Studies that this process works on and no other does. The locks go with the connection, however it ends.

    Not for use by several threads. Close it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    @contextmanager
    def holding(self, study_keys: Sequence[int]) -> Iterator[list[int]]:
        """The studies of these that nobody else works on; they are ours in the block."""
        connection = self._living()
        keys = sorted({key % _STUDY_LOCK_KEYS for key in study_keys})
        try:
            rows = connection.execute(
                "SELECT k, pg_try_advisory_lock(%s, k) AS is_mine FROM unnest(%s::int[]) k", (STUDY_LOCK_CLASS, keys)
            ).fetchall()
        except psycopg.OperationalError as error:
            self.close()
            raise DatabaseUnavailable(f"The database does not answer ({type(error).__name__}).") from error
        mine = [row["k"] for row in rows if row["is_mine"]]
        try:
            yield [key for key in study_keys if key % _STUDY_LOCK_KEYS in set(mine)]
        finally:
            with contextlib.suppress(psycopg.OperationalError):  # then the locks are gone already
                connection.execute(
                    "SELECT pg_advisory_unlock(%s, k) FROM unnest(%s::int[]) k", (STUDY_LOCK_CLASS, mine)
                )

    def close(self) -> None:
        """Let go of all."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _living(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.autocommit_connection()
        return self._connection


def copies_to_move(
    connection: Connection, study_keys: Sequence[int], sources: Sequence[str], targets: Sequence[str]
) -> list[Row]:
    """The good copies of studies on source volumes, a row an object: study_key, object_key, copy_key, volume_id, path,
    sha256, size_bytes, and is_there: whether a good copy is on one of the targets already.

    Of several copies on the sources one is told; the others leave with it.
    """
    return connection.execute(
        "SELECT DISTINCT ON (se.study_key, o.object_key) se.study_key, o.object_key, c.copy_key, c.volume_id::text,"
        " c.path, o.sha256, o.size_bytes, EXISTS (SELECT FROM copy k WHERE k.object_key = o.object_key"
        " AND k.state = 'good' AND k.volume_id = ANY (%(targets)s::uuid[])) AS is_there"
        " FROM series se JOIN object o USING (series_key) JOIN copy c USING (object_key)"
        " WHERE se.study_key = ANY (%(studies)s) AND c.volume_id = ANY (%(sources)s::uuid[]) AND c.state = 'good'"
        " ORDER BY se.study_key, o.object_key, c.copy_key",
        {"studies": list(study_keys), "sources": list(sources), "targets": list(targets)},
    ).fetchall()


def revive_copies(connection: Connection, study_keys: Sequence[int], volume_ids: Sequence[str]) -> int:
    """Take copies of studies that have left some volumes, and whose files are still there, back into service."""
    return connection.execute(
        "UPDATE copy c SET state = 'good', left_at = NULL FROM series se JOIN object o USING (series_key)"
        " WHERE se.study_key = ANY (%s) AND c.object_key = o.object_key AND c.state = 'leaving'"
        " AND c.volume_id = ANY (%s::uuid[])",
        (list(study_keys), list(volume_ids)),
    ).rowcount


def add_copies(connection: Connection, volume_id: str, copies: Sequence[tuple[int, str]]) -> set[int]:
    """Note verified copies (object key, path) on a volume; return the keys of those that count now.

    One that was lost or bad on this volume before is replaced. Where the object was deleted meanwhile, or another good
    copy came to this volume, none is added: the caller removes its file.
    """
    rows = connection.execute(
        "INSERT INTO copy AS c (tenant_id, object_key, volume_id, path)"
        " SELECT o.tenant_id, o.object_key, %s, n.path"
        " FROM unnest(%s::bigint[], %s::text[]) n (object_key, path) JOIN object o USING (object_key)"
        " ORDER BY o.object_key FOR KEY SHARE OF o"
        " ON CONFLICT (object_key, volume_id) DO UPDATE SET path = excluded.path, state = 'good', created_at = now(),"
        " left_at = NULL WHERE c.state IN ('missing', 'bad')"
        " RETURNING c.object_key",
        (volume_id, [key for key, _path in copies], [path for _key, path in copies]),
    ).fetchall()
    return {row["object_key"] for row in rows}


def leave(connection: Connection, object_keys: Sequence[int], sources: Sequence[str], here: Sequence[str]) -> int:
    """Take objects' copies on source volumes out of service, each only if a good one elsewhere `here` stays."""
    copies = _locked(connection, object_keys)
    staying = {
        copy["object_key"]
        for copy in copies
        if copy["state"] == "good" and copy["volume_id"] in here and copy["volume_id"] not in sources
    }
    return _set_state(
        connection,
        [
            copy["copy_key"]
            for copy in copies
            if copy["state"] == "good" and copy["volume_id"] in sources and copy["object_key"] in staying
        ],
        "leaving",
    )


def left_copies(connection: Connection, volume_id: str, older_than_s: float, copies_max: int) -> list[Row]:
    """Copies on a volume (copy_key, object_key) that no reader was given for longer than older_than_s."""
    return connection.execute(
        "SELECT copy_key, object_key FROM copy WHERE volume_id = %s AND state = 'leaving'"
        " AND left_at < now() - make_interval(secs => %s) ORDER BY left_at LIMIT %s",
        (volume_id, older_than_s, copies_max),
    ).fetchall()


def forget_left(connection: Connection, copies: Sequence[Row], here: Sequence[str]) -> list[str]:
    """Forget copies that have left, each only if a good one is on another volume that is here; return the paths of
    their files, which are the caller's to remove. One whose others were all lost meanwhile comes back into service."""
    asked = {copy["copy_key"] for copy in copies}
    locked = _locked(connection, [copy["object_key"] for copy in copies])
    good = [
        copy
        for copy in locked
        if copy["state"] == "good" and copy["copy_key"] not in asked and copy["tier"] < REPOSITORY_TIER
    ]
    with_good, with_good_here = (
        {copy["object_key"] for copy in good},
        {copy["object_key"] for copy in good if copy["volume_id"] in here},
    )
    left = [copy for copy in locked if copy["state"] == "leaving" and copy["copy_key"] in asked]
    _set_state(connection, [copy["copy_key"] for copy in left if copy["object_key"] not in with_good], "good")
    rows = connection.execute(
        "DELETE FROM copy WHERE copy_key = ANY (%s) RETURNING path",
        ([copy["copy_key"] for copy in left if copy["object_key"] in with_good_here],),
    ).fetchall()
    return [row["path"] for row in rows]


# What is decided of many copies is decided here and not in the statement: after a million rows have changed, the
# planner's idea of the table is an old one, and a join of its own choice takes the square of the time.


def _locked(connection: Connection, object_keys: Sequence[int]) -> list[Row]:
    return connection.execute(
        "SELECT c.copy_key, c.object_key, c.volume_id::text, c.state, v.tier FROM copy c"
        " JOIN volume v USING (volume_id) WHERE c.object_key = ANY (%s) ORDER BY c.copy_key FOR UPDATE OF c",
        (list(object_keys),),
    ).fetchall()


def _set_state(connection: Connection, copy_keys: Sequence[int], state: str) -> int:
    return connection.execute(
        "UPDATE copy SET state = %s, left_at = CASE WHEN %s = 'leaving' THEN now() END WHERE copy_key = ANY (%s)",
        (state, state, list(copy_keys)),
    ).rowcount
