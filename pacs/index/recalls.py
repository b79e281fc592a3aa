"""Queries of recall: studies of tier 3 that were asked for, and what is brought back with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pacs.index.database import Connection, Database, Row

Why = Literal["asked", "person", "prior", "restore"]

#: The tier from which studies are recalled; those above are at hand.
FAR_TIER = 3


def request(connection: Connection, study_keys: Collection[int], why: Why) -> int:
    """Ask for studies; one that is asked for already is not asked for twice. Return how many are new, or are no longer
    only to come back behind a restore."""
    return connection.execute(
        "INSERT INTO recall AS r (tenant_id, study_key, why) SELECT tenant_id, study_key, %s FROM study"
        " WHERE study_key = ANY (%s) ORDER BY study_key"
        " ON CONFLICT (study_key) WHERE state = 'open' DO UPDATE SET why = excluded.why, next_try_at = now()"
        " WHERE r.why = 'restore'",
        (why, sorted(study_keys)),
    ).rowcount


def far_priors(connection: Connection, study_keys: Collection[int], studies_max: int, days_max: float) -> list[int]:
    """Earlier studies of the same patients, of a modality or body part in common, that are on tier 3: of each study
    the newest studies_max that are at most days_max older than it. Patients without an identity have none.
    """
    rows = connection.execute(
        "SELECT DISTINCT prior.study_key FROM study st CROSS JOIN LATERAL ("
        "  SELECT p.study_key FROM study p WHERE p.patient_key = st.patient_key AND p.study_key <> st.study_key"
        "     AND p.study_date <= st.study_date AND p.study_date ~ '^[0-9]{8}$' AND st.study_date ~ '^[0-9]{8}$'"
        "     AND p.study_date >= to_char(to_date(st.study_date, 'YYYYMMDD')"
        "                                 - make_interval(secs => 86400 * %(days_max)s::float8), 'YYYYMMDD')"
        "     AND EXISTS (SELECT FROM series a JOIN series b ON b.study_key = st.study_key"
        "          WHERE a.study_key = p.study_key AND ((a.modality = b.modality AND a.modality <> '')"
        "                OR (a.body_part_examined = b.body_part_examined AND a.body_part_examined <> '')))"
        "   ORDER BY p.study_date DESC, p.study_key DESC LIMIT %(studies_max)s) prior"
        " WHERE st.study_key = ANY (%(studies)s)",
        {"studies": list(study_keys), "studies_max": studies_max, "days_max": days_max},
    ).fetchall()
    return far_of(connection, [row["study_key"] for row in rows])


def far_of(connection: Connection, study_keys: Collection[int]) -> list[int]:
    """Those of some studies of which an object is on tier 3 only."""
    rows = connection.execute(
        "SELECT DISTINCT se.study_key FROM series se JOIN object o USING (series_key) CROSS JOIN LATERAL ("
        " SELECT min(v.tier) AS tier FROM copy c JOIN volume v USING (volume_id)"
        " WHERE c.object_key = o.object_key AND c.state = 'good') at"
        " WHERE se.study_key = ANY (%s) AND at.tier >= %s ORDER BY se.study_key",
        (list(study_keys), FAR_TIER),
    ).fetchall()
    return [row["study_key"] for row in rows]


def due(database: Database, recalls_max: int) -> list[Row]:
    """The recalls to be done now, those that somebody waits for first: recall_key, study_key, attempts."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT recall_key, study_key, attempts FROM recall"
            " WHERE state = 'open' AND why <> 'restore' AND next_try_at <= now()"
            " ORDER BY why = 'prior', recall_key LIMIT %s",
            (recalls_max,),
        ).fetchall()


def due_behind(database: Database, recalls_max: int) -> list[Row]:
    """The same of those that come back behind a restore, in the order in which it asked for them."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT recall_key, study_key, attempts FROM recall"
            " WHERE state = 'open' AND why = 'restore' AND next_try_at <= now() ORDER BY recall_key LIMIT %s",
            (recalls_max,),
        ).fetchall()


def is_open(connection: Connection, recall_key: int) -> bool:
    """Whether a recall is yet to be done; it is asked by who has the study's lock."""
    return (
        connection.execute("SELECT FROM recall WHERE recall_key = %s AND state = 'open'", (recall_key,)).fetchone()
        is not None
    )


def objects_to_recall(connection: Connection, study_key: int, near: Sequence[str]) -> list[Row]:
    """A study's objects of which no good copy is on a near volume, a row a good copy elsewhere, the nearest first:
    object_key, copy_key, volume_id, path, sha256, size_bytes, and for a new path tenant_id, arrived_at,
    study_instance_uid."""
    return connection.execute(
        "SELECT o.object_key, c.copy_key, c.volume_id::text, c.path, o.sha256, o.size_bytes, o.tenant_id, o.arrived_at,"
        " st.study_instance_uid FROM study st JOIN series se USING (study_key)"
        " JOIN object o USING (series_key) JOIN copy c USING (object_key) JOIN volume v USING (volume_id)"
        " WHERE st.study_key = %(study)s AND c.state = 'good' AND NOT EXISTS (SELECT FROM copy k"
        " WHERE k.object_key = o.object_key AND k.state = 'good' AND k.volume_id = ANY (%(near)s::uuid[]))"
        " ORDER BY o.object_key, v.tier, c.copy_key",
        {"study": study_key, "near": list(near)},
    ).fetchall()


def note_progress(connection: Connection, recall_key: int, objects: int, size_bytes: int) -> None:
    """Add to what a recall has brought back."""
    connection.execute(
        "UPDATE recall SET objects = objects + %s, size_bytes = size_bytes + %s WHERE recall_key = %s",
        (objects, size_bytes, recall_key),
    )


def finish(connection: Connection, recall_key: int) -> None:
    """A study is back."""
    connection.execute(
        "UPDATE recall SET state = 'done', finished_at = now(), last_error = '' WHERE recall_key = %s", (recall_key,)
    )


def try_later(connection: Connection, recall_key: int, error: str, after_s: float, give_up: bool) -> None:
    """Note why a recall did not succeed, and when it is tried again; or that it is not."""
    connection.execute(
        "UPDATE recall SET attempts = attempts + 1, last_error = %s,"
        " next_try_at = now() + make_interval(secs => %s), state = CASE WHEN %s THEN 'failed' ELSE state END,"
        " finished_at = CASE WHEN %s THEN now() END WHERE recall_key = %s",
        (error, after_s, give_up, give_up, recall_key),
    )


def list_recalls(database: Database, recalls_max: int, with_done: bool = True) -> list[Row]:
    """Recalls, those that are open first and then the newest, without those that come back behind a restore:
    study_instance_uid, why, state, objects, size_bytes, attempts, last_error, requested_at, next_try_at, finished_at.
    """
    with database.transaction() as connection:
        return connection.execute(
            "SELECT st.study_instance_uid, r.why, r.state, r.objects, r.size_bytes, r.attempts, r.last_error,"
            " r.requested_at, r.next_try_at, r.finished_at FROM recall r JOIN study st USING (study_key)"
            " WHERE r.why <> 'restore' AND (r.state = 'open' OR %s)"
            " ORDER BY r.state <> 'open', r.recall_key DESC LIMIT %s",
            (with_done, recalls_max),
        ).fetchall()


def failed_lately(database: Database, days: float) -> list[Row]:
    """Recalls given up in the last days and not done since: study_instance_uid, last_error, finished_at."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT st.study_instance_uid, r.last_error, r.finished_at FROM recall r JOIN study st USING (study_key)"
            " WHERE r.state = 'failed' AND r.finished_at > now() - make_interval(secs => 86400 * %s::float8)"
            " AND NOT EXISTS (SELECT FROM recall x WHERE x.study_key = r.study_key AND x.state = 'done'"
            " AND x.recall_key > r.recall_key) ORDER BY r.finished_at DESC",
            (days,),
        ).fetchall()


def forget_old(database: Database, days: float) -> int:
    """Forget recalls that were over before so many days, of a restore when all of it is back; return how many."""
    with database.transaction() as connection:
        return connection.execute(
            "DELETE FROM recall WHERE state <> 'open' AND (restore_key IS NULL OR restore_key IN ("
            " SELECT restore_key FROM restore WHERE finished_at IS NOT NULL))"
            " AND finished_at < now() - make_interval(secs => 86400 * %s::float8)",
            (days,),
        ).rowcount


def oldest_waiting(database: Database) -> Row:
    """Of the recalls that somebody waits for: how many there are, and how long the oldest has waited [s] or None."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) AS waiting, extract(epoch FROM now() - min(requested_at))::float8 AS oldest_s FROM recall"
            " WHERE state = 'open' AND why IN ('asked', 'person')"
        ).fetchone()
    assert row is not None
    return row
