"""Queries of a restore: which copies are there no more, what comes back behind it, and what is to be sent again."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from pacs.index.database import Connection, Database, Row
from pacs.index.volumes import REPOSITORY_TIER, KnownVolume, insert_volume


@dataclass(frozen=True)
class Replaced:
    """What `replace_volumes` did: copies that were dropped, and objects that are on no volume any more."""

    copies: int
    objects_lost: int


def replace_volumes(connection: Connection, gone: Collection[str], new: Sequence[KnownVolume]) -> Replaced:
    """Put volumes in the place of those that are gone, whose copies are dropped.

    An object of which no copy is left is noted as missing on the first of the new volumes, so that `pacs check` tells
    of it, a repair looks for it, and another sending heals it.
    """
    parameters = {"gone": list(gone), "first": new[0].volume_id if new else None}
    connection.execute("SET LOCAL work_mem = '128MB'")
    connection.execute(
        "CREATE TEMPORARY TABLE lost ON COMMIT DROP AS SELECT DISTINCT ON (c.object_key) c.tenant_id, c.object_key,"
        " c.path FROM copy c WHERE c.volume_id = ANY (%(gone)s::uuid[]) AND NOT EXISTS (SELECT FROM copy k"
        " WHERE k.object_key = c.object_key AND k.volume_id <> ALL (%(gone)s::uuid[]))"
        " ORDER BY c.object_key, c.copy_key",
        parameters,
    )
    dropped = connection.execute("DELETE FROM copy WHERE volume_id = ANY (%(gone)s::uuid[])", parameters).rowcount
    connection.execute("DELETE FROM volume WHERE volume_id = ANY (%(gone)s::uuid[])", parameters)
    for volume in new:
        connection.execute(  # one that was retired long ago may have had the name
            "UPDATE volume SET name = name || '-' || left(volume_id::text, 8) WHERE name = %s AND volume_id <> %s",
            (volume.name, volume.volume_id),
        )
        insert_volume(connection, volume)
    lost = 0
    if new:
        lost = connection.execute(
            "INSERT INTO copy (tenant_id, object_key, volume_id, path)"
            " SELECT tenant_id, object_key, %(first)s, path FROM lost ORDER BY object_key ON CONFLICT DO NOTHING",
            parameters,
        ).rowcount
        connection.execute(  # from good: so the damage is noted
            "UPDATE copy c SET state = 'missing' FROM lost l"
            " WHERE c.object_key = l.object_key AND c.volume_id = %(first)s AND c.path = l.path AND c.state = 'good'",
            parameters,
        )
    return Replaced(dropped, lost)


def holds_objects(database: Database) -> bool:
    """Whether there is an object in the index; a database without our tables has none."""
    with database.transaction() as connection:
        row = connection.execute("SELECT to_regclass('object') IS NOT NULL AS is_there").fetchone()
        if row is None or not row["is_there"]:
            return False
        return connection.execute("SELECT FROM object LIMIT 1").fetchone() is not None


def is_noted(database: Database, restore_id: str) -> bool:
    """Whether a restore has put its volumes in their places."""
    with database.transaction() as connection:
        row = connection.execute("SELECT FROM restore WHERE restore_id = %s", (restore_id,)).fetchone()
    return row is not None


def note_source(connection: Connection, repository: KnownVolume) -> None:
    """Note where the repository that was restored from is now."""
    insert_volume(connection, repository)
    connection.execute(
        "UPDATE volume SET state = 'active', kind = %s, options = %s WHERE volume_id = %s",
        (repository.kind, json.dumps(dict(repository.options)), repository.volume_id),
    )


def without_copy_elsewhere(database: Database, gone: Collection[str]) -> list[Row]:
    """Objects that have no copy on another volume than these: object_key, sha256, size_bytes.

    Their copies in a repository may be there and not be noted yet: the database is as it was a moment before.
    """
    with database.transaction() as connection:
        connection.execute("SET LOCAL work_mem = '128MB'")
        return connection.execute(
            "SELECT o.object_key, o.sha256, o.size_bytes FROM object o WHERE NOT EXISTS (SELECT FROM copy k"
            " WHERE k.object_key = o.object_key AND k.volume_id <> ALL (%s::uuid[])) ORDER BY o.object_key",
            (list(gone),),
        ).fetchall()


def forget_what_went_on(connection: Connection) -> None:
    """What was under way when the database was written is not any more: associations, recalls, what was told of the
    volumes' receipts."""
    connection.execute("UPDATE association SET closed_at = now() WHERE closed_at IS NULL")
    connection.execute("UPDATE receipt_mark SET object_key = 0, duplicate_key = 0")  # none is on these volumes
    connection.execute("DELETE FROM recall WHERE state = 'open'")


def forget_what_is_owed(connection: Connection) -> None:
    """In a trial copy: what devices are owed is the living archive's to give."""
    connection.execute("DELETE FROM commitment WHERE state = 'open'")


def begin_bulk(connection: Connection, restore_id: str, repository: str, point: str, restored_to: datetime) -> int:
    """Note a restore, and ask for all that is in a repository only: newest and most lately used first. Return its key.

    A restore that was noted before is let be. The same is done where a volume is given up whose objects are in a
    repository only: `point` says so then.
    """
    row = connection.execute(
        "INSERT INTO restore (restore_id, repository, point, restored_to) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (restore_id) DO NOTHING RETURNING restore_key",
        (restore_id, repository, point, restored_to),
    ).fetchone()
    if row is None:
        row = connection.execute("SELECT restore_key FROM restore WHERE restore_id = %s", (restore_id,)).fetchone()
        assert row is not None
        return int(row["restore_key"])
    connection.execute("SET LOCAL work_mem = '128MB'")
    connection.execute(
        "CREATE TEMPORARY TABLE behind ON COMMIT DROP AS SELECT se.study_key, count(*) AS objects,"
        " sum(o.size_bytes)::bigint AS size_bytes, max(o.arrived_at) AS last_arrival"
        " FROM object o JOIN series se USING (series_key) JOIN ("
        "  SELECT c.object_key FROM copy c JOIN volume v USING (volume_id) WHERE c.state = 'good'"
        "   GROUP BY c.object_key HAVING min(v.tier) >= %s) far USING (object_key)"
        " GROUP BY se.study_key",
        (REPOSITORY_TIER,),
    )
    connection.execute(
        "INSERT INTO recall (tenant_id, study_key, why, restore_key)"
        " SELECT st.tenant_id, b.study_key, 'restore', %s FROM behind b JOIN study st USING (study_key)"
        " LEFT JOIN study_use u USING (study_key) ORDER BY greatest(b.last_arrival, u.used_at) DESC, b.study_key DESC"
        " ON CONFLICT (study_key) WHERE state = 'open' DO UPDATE SET restore_key = excluded.restore_key",
        (row["restore_key"],),
    )
    connection.execute(
        "UPDATE restore SET (studies, objects, size_bytes) = (SELECT count(*), coalesce(sum(objects), 0)::bigint,"
        " coalesce(sum(size_bytes), 0)::bigint FROM behind),"
        " finished_at = CASE WHEN NOT EXISTS (SELECT FROM behind) THEN now() END WHERE restore_key = %s",
        (row["restore_key"],),
    )
    connection.execute(
        "UPDATE volume SET is_source = true WHERE tier = %s AND EXISTS (SELECT FROM behind)", (REPOSITORY_TIER,)
    )
    return int(row["restore_key"])


def newest_restore(database: Database, lately_s: float = 1800) -> Row | None:
    """The newest restore, and how far what comes back behind it is; None if there was none.

    repository, point, restored_to, studies, objects, size_bytes, begun_at, finished_at; done_studies, done_objects,
    done_bytes; lately_bytes: of the studies that came back in the last lately_s; waiting: studies whose last try
    failed, and last_error of one of them.
    """
    with database.transaction() as connection:
        return connection.execute(
            "SELECT r.repository, r.point, r.restored_to, r.studies, r.objects, r.size_bytes, r.begun_at,"
            " r.finished_at, d.* FROM restore r CROSS JOIN LATERAL ("
            "  SELECT count(*) FILTER (WHERE x.state <> 'open') AS done_studies,"
            "   coalesce(sum(x.objects), 0)::bigint AS done_objects,"
            "   coalesce(sum(x.size_bytes), 0)::bigint AS done_bytes,"
            "   coalesce(sum(x.size_bytes) FILTER (WHERE x.finished_at > now() - make_interval(secs => %s)), 0)::bigint"
            "    AS lately_bytes,"
            "   count(*) FILTER (WHERE x.state = 'open' AND x.last_error <> '') AS waiting,"
            "   max(x.last_error) FILTER (WHERE x.state = 'open' AND x.last_error <> '') AS last_error"
            "   FROM recall x WHERE x.restore_key = r.restore_key) d"
            " ORDER BY r.restore_key DESC LIMIT 1",
            (lately_s,),
        ).fetchone()


def finish_bulk(database: Database) -> bool:
    """Note that all of a restore is back, if it is. True if it just was."""
    with database.transaction() as connection:
        is_done = connection.execute(
            "UPDATE restore r SET finished_at = now() WHERE finished_at IS NULL AND NOT EXISTS ("
            " SELECT FROM recall x WHERE x.restore_key = r.restore_key AND x.state = 'open')"
        ).rowcount
        if is_done:
            connection.execute(
                "UPDATE volume SET is_source = false"
                " WHERE is_source AND NOT EXISTS (SELECT FROM restore WHERE finished_at IS NULL)"
            )
    return is_done > 0


def studies_to_send_again(database: Database, studies_max: int) -> list[Row]:
    """Studies with objects of which no copy is left, by who sent them: calling_ae, peer, device (its name, or None),
    study_instance_uid, study_date, modalities, objects, arrived_at (of the newest). Whole only with studies_max."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT a.calling_ae, max(a.peer) AS peer, max(dev.name) AS device, st.study_instance_uid, st.study_date,"
            " array_agg(DISTINCT se.modality) AS modalities, count(*) AS objects, max(o.arrived_at) AS arrived_at"
            " FROM (SELECT DISTINCT c.object_key FROM copy c WHERE c.state IN ('missing', 'bad') AND (SELECT count(*)"
            "  FROM copy g WHERE g.object_key = c.object_key AND g.state IN ('good', 'leaving')) = 0) l"
            " JOIN object o USING (object_key) JOIN series se USING (series_key) JOIN study st USING (study_key)"
            " LEFT JOIN association a USING (association_key)"
            " LEFT JOIN device dev ON dev.tenant_id = o.tenant_id"
            "  AND (dev.ae_title = a.calling_ae OR a.calling_ae = ANY (dev.aliases))"
            " GROUP BY a.calling_ae, st.study_key ORDER BY a.calling_ae NULLS LAST, max(o.arrived_at), st.study_key"
            " LIMIT %s",
            (studies_max,),
        ).fetchall()


def last_heard(database: Database, objects_max: int = 200_000) -> list[Row]:
    """Who sent the newest objects that the index knows: calling_ae, device (its name, or None), last_at."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT a.calling_ae, max(dev.name) AS device, max(o.arrived_at) AS last_at FROM ("
            "  SELECT association_key, arrived_at FROM object ORDER BY object_key DESC LIMIT %s) o"
            " JOIN association a USING (association_key)"
            " LEFT JOIN device dev ON dev.tenant_id = a.tenant_id"
            "  AND (dev.ae_title = a.calling_ae OR a.calling_ae = ANY (dev.aliases))"
            " GROUP BY a.calling_ae ORDER BY last_at DESC, a.calling_ae",
            (objects_max,),
        ).fetchall()
