"""Queries about copies that are missing or bad: which, what was tried, what became of them, what is lost."""

from __future__ import annotations

from pacs.index.database import Connection, Database, Row
from pacs.index.store import DEFAULT_TENANT

#: After a try that failed the next comes this much later [s], twice as much each time, up to a day.
FIRST_WAIT_S = 60
LONGEST_WAIT_S = 86_400

#: So many lost copies are looked at to tell which objects are lost: whoever has lost a disk must not wait for that.
LOOKED_AT_MAX = 20_000

_LOST = "c.state IN ('missing', 'bad')"
#: Whether something can be given of a copy's object yet. A copy that is leaving is there yet. A subquery that returns a
#: value is looked up row by row in an index; EXISTS would be joined, with the whole table if the planner thinks so.
_LEFT = "(SELECT count(*) FROM copy g WHERE g.object_key = c.object_key AND g.state IN ('good', 'leaving'))"
_LOST_OBJECTS = (
    f"SELECT DISTINCT c.object_key FROM (SELECT c.object_key FROM copy c WHERE {_LOST} ORDER BY c.copy_key"
    f" LIMIT {LOOKED_AT_MAX}) c WHERE {_LEFT} = 0"
)


def due_damage(database: Database, copies_max: int, at_once: bool = False, after_key: int = 0) -> list[Row]:
    """Copies to repair whose turn it is, by key; at_once: those too that wait for their next try.

    Rows of copy_key, object_key, volume_id, path, state, sha256, size_bytes, and for a new path tier, tenant_id,
    arrived_at, study_instance_uid.
    """
    with database.transaction() as connection:
        return connection.execute(
            "SELECT c.copy_key, c.object_key, c.volume_id::text, c.path, c.state, o.sha256, o.size_bytes,"
            " v.tier, o.tenant_id, o.arrived_at, st.study_instance_uid FROM copy c JOIN object o USING (object_key)"
            " JOIN volume v USING (volume_id)"
            " JOIN series se USING (series_key) JOIN study st USING (study_key)"
            f" LEFT JOIN damage d ON d.copy_key = c.copy_key AND d.settled_at IS NULL"
            f" WHERE {_LOST} AND c.copy_key > %s AND (%s OR d.next_try_at IS NULL OR d.next_try_at <= now())"
            " ORDER BY c.copy_key LIMIT %s".encode(),
            (after_key, at_once, copies_max),
        ).fetchall()


def sources(connection: Connection, object_key: int, but_copy_key: int) -> list[Row]:
    """The other copies of an object that are in service or leaving: copy_key, volume_id, path, nearest tier first."""
    return connection.execute(
        "SELECT c.copy_key, c.volume_id::text, c.path FROM copy c JOIN volume v USING (volume_id)"
        " WHERE c.object_key = %s AND c.copy_key <> %s AND c.state IN ('good', 'leaving')"
        " ORDER BY c.state = 'leaving', v.tier",
        (object_key, but_copy_key),
    ).fetchall()


def put_in_service(connection: Connection, copy_key: int, path: str, new_path: str, outcome: str) -> bool:
    """Take a lost copy into service with the file at new_path, if nobody has done so meanwhile. True if done."""
    connection.execute(
        "UPDATE damage SET outcome = %s, tries = tries + 1 WHERE copy_key = %s AND settled_at IS NULL"
        " AND EXISTS (SELECT FROM copy WHERE copy_key = %s AND path = %s AND state IN ('missing', 'bad') FOR UPDATE)",
        (outcome, copy_key, copy_key, path),
    )
    return (
        connection.execute(
            "UPDATE copy SET path = %s, state = 'good', left_at = NULL, created_at = now()"
            " WHERE copy_key = %s AND path = %s AND state IN ('missing', 'bad')",
            (new_path, copy_key, path),
        ).rowcount
        == 1
    )


def adopt(connection: Connection, sop_instance_uid: str, sha256: bytes, volume_id: str, new_path: str) -> bool:
    """Take a whole file without a row for its object's lost copy on the same volume. True if there was one."""
    row = connection.execute(
        "SELECT c.copy_key, c.path FROM object o JOIN copy c USING (object_key) WHERE o.tenant_id = %s"
        f" AND o.sop_instance_uid = %s AND o.sha256 = %s AND c.volume_id = %s AND {_LOST}".encode(),
        (DEFAULT_TENANT, sop_instance_uid, sha256, volume_id),
    ).fetchone()
    return row is not None and put_in_service(connection, row["copy_key"], row["path"], new_path, "repaired")


def change_lost(connection: Connection, copy_key: int, path: str, new_path: str, state: str) -> None:
    """Note where a lost copy's file is now, and how it is lost."""
    connection.execute(
        "UPDATE copy SET path = %s, state = %s WHERE copy_key = %s AND path = %s AND state IN ('missing', 'bad')",
        (new_path, state, copy_key, path),
    )


def put_off(database: Database, copy_key: int, error: str) -> None:
    """Note why a copy could not be repaired; the next try comes later each time."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO damage AS d (tenant_id, copy_key, object_key, volume_id, path, state, tries, last_error,"
            " next_try_at) SELECT tenant_id, copy_key, object_key, volume_id, path, state, 1, %(error)s,"
            " now() + make_interval(secs => %(first_s)s) FROM copy"
            " WHERE copy_key = %(copy_key)s AND state IN ('missing', 'bad')"
            " ON CONFLICT (copy_key) WHERE settled_at IS NULL DO UPDATE SET tries = d.tries + 1,"
            " last_error = %(error)s,"
            " next_try_at = now() + make_interval(secs => least(%(longest_s)s, %(first_s)s * 2 ^ least(d.tries, 20)))",
            {"error": error, "first_s": FIRST_WAIT_S, "longest_s": LONGEST_WAIT_S, "copy_key": copy_key},
        )


def copies_out_of_service(database: Database, copies_max: int = 1000) -> list[Row]:
    """The copies that are missing or bad now.

    Rows of copy_key, volume_id, volume (its name), path, state, found_at, tries, next_try_at, last_error, has_other
    (whether another copy is in service), study_instance_uid, sop_instance_uid, calling_ae (who sent it).
    """
    with database.transaction() as connection:
        return connection.execute(
            "SELECT c.copy_key, c.volume_id::text, v.name AS volume, c.path, c.state, d.found_at, d.tries,"
            f" d.next_try_at, d.last_error, {_LEFT} > 0 AS has_other, st.study_instance_uid,"
            " o.sop_instance_uid, a.calling_ae"
            " FROM copy c JOIN volume v USING (volume_id) JOIN object o USING (object_key)"
            " JOIN series se USING (series_key) JOIN study st USING (study_key)"
            " LEFT JOIN association a USING (association_key)"
            " LEFT JOIN damage d ON d.copy_key = c.copy_key AND d.settled_at IS NULL"
            f" WHERE {_LOST} ORDER BY c.copy_key LIMIT %s".encode(),
            (copies_max,),
        ).fetchall()


def lost_studies(database: Database, studies_max: int = 20) -> list[Row]:
    """Studies with objects of which no copy is left: study_instance_uid, calling_aes (who sent them), objects.

    Of LOOKED_AT_MAX copies; there may be more.
    """
    with database.transaction() as connection:
        return connection.execute(
            "SELECT st.study_instance_uid, array_agg(DISTINCT a.calling_ae) FILTER (WHERE a.calling_ae IS NOT NULL)"
            " AS calling_aes, count(*) AS objects"
            f" FROM ({_LOST_OBJECTS}) l JOIN object o USING (object_key) JOIN series se USING (series_key)"
            " JOIN study st USING (study_key) LEFT JOIN association a USING (association_key)"
            " GROUP BY st.study_key ORDER BY st.study_key LIMIT %s".encode(),
            (studies_max,),
        ).fetchall()


def damage_counts(database: Database) -> Row:
    """Figures: copies out of service, quarantined (the copies among them whose file was put aside), lost (objects of
    which none is left, of LOOKED_AT_MAX copies), and what became of damage: repaired, found_well, healed, forgotten."""
    with database.transaction() as connection:
        row = connection.execute(
            f"SELECT (SELECT count(*) FROM copy c WHERE {_LOST}) AS out_of_service,"
            f" (SELECT count(*) FROM copy c WHERE {_LOST} AND c.path LIKE 'quarantine/%') AS quarantined,"
            f" (SELECT count(*) FROM ({_LOST_OBJECTS}) l) AS lost,"
            " count(*) FILTER (WHERE outcome = 'repaired') AS repaired,"
            " count(*) FILTER (WHERE outcome = 'found well') AS found_well,"
            " count(*) FILTER (WHERE outcome = 'healed') AS healed,"
            " count(*) FILTER (WHERE outcome = 'forgotten') AS forgotten"
            " FROM damage WHERE settled_at IS NOT NULL".encode()
        ).fetchone()
    assert row is not None
    return row
