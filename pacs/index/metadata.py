"""Queries of studies' metadata: what a study is made of now, and which have settled since theirs was written."""

from __future__ import annotations

from pacs.index.database import SESSION_LOCK_CLASS, Connection, Database, Row
from pacs.index.store import DEFAULT_TENANT

#: How many arrivals a turn looks at.
OBJECTS_MAX = 20_000


def study_now(database: Database, study_instance_uid: str) -> tuple[int, str]:
    """A study's key, and what tells whether its objects are those that its metadata was made of; (0, "") if there is no
    such study."""
    with database.lent_connection() as connection:
        row = connection.execute(
            "SELECT st.study_key, md5(string_agg(o.sha256, ''::bytea ORDER BY o.object_key)) AS found"
            " FROM study st JOIN series se USING (study_key) JOIN object o USING (series_key)"
            " WHERE st.tenant_id = %s AND st.study_instance_uid = %s AND o.is_current GROUP BY st.study_key",
            (DEFAULT_TENANT, study_instance_uid),
        ).fetchone()
    return (row["study_key"], row["found"]) if row is not None else (0, "")


def series_of_objects(database: Database, study_instance_uid: str) -> dict[int, str]:
    """Object key → Series Instance UID, of a study's current objects."""
    with database.lent_connection() as connection:
        rows = connection.execute(
            "SELECT o.object_key, se.series_instance_uid FROM study st JOIN series se USING (study_key)"
            " JOIN object o USING (series_key)"
            " WHERE st.tenant_id = %s AND st.study_instance_uid = %s AND o.is_current",
            (DEFAULT_TENANT, study_instance_uid),
        ).fetchall()
    return {row["object_key"]: row["series_instance_uid"] for row in rows}


def mark(connection: Connection) -> int:
    """Up to which object every settled study has its metadata."""
    row = connection.execute("SELECT object_key FROM metadata_mark WHERE tenant_id = %s", (DEFAULT_TENANT,)).fetchone()
    assert row is not None
    return int(row["object_key"])


def move_mark(connection: Connection, object_key: int) -> None:
    """Note up to where it is."""
    connection.execute("UPDATE metadata_mark SET object_key = %s WHERE tenant_id = %s", (object_key, DEFAULT_TENANT))


def studies_since(connection: Connection, after: int, settle_s: float) -> list[Row]:
    """The studies of the next OBJECTS_MAX arrivals behind a key, in their order: study_instance_uid, first_key,
    last_key, and is_settled: no association that touched it is open, and nothing came for settle_s."""
    return connection.execute(
        "WITH came AS (SELECT object_key, series_key FROM object WHERE object_key > %(after)s"
        "   ORDER BY object_key LIMIT %(max)s),"
        " touched AS (SELECT se.study_key, min(object_key) AS first_key, max(object_key) AS last_key"
        "   FROM came JOIN series se USING (series_key) GROUP BY se.study_key)"
        " SELECT st.study_instance_uid, t.first_key, t.last_key,"
        "   a.last_arrival < now() - make_interval(secs => %(settle_s)s) AND NOT EXISTS ("
        "     SELECT FROM association x JOIN pg_locks l ON l.locktype = 'advisory' AND l.classid = %(lock_class)s"
        "       AND l.objid = x.session_key"
        "      WHERE x.closed_at IS NULL AND x.association_key = ANY (a.associations)) AS is_settled"
        " FROM touched t JOIN study st USING (study_key) CROSS JOIN LATERAL ("
        "   SELECT max(o.arrived_at) AS last_arrival, array_agg(DISTINCT o.association_key) AS associations"
        "     FROM series se JOIN object o USING (series_key) WHERE se.study_key = st.study_key) a"
        " ORDER BY t.first_key",
        {"after": after, "max": OBJECTS_MAX, "settle_s": settle_s, "lock_class": SESSION_LOCK_CLASS},
    ).fetchall()
