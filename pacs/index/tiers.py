"""Queries of tiering: rules, pins, last use, and which studies a rule is about."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pacs.errors import NotFound
from pacs.index.database import SESSION_LOCK_CLASS, Connection, Database, Row
from pacs.index.store import DEFAULT_TENANT
from pacs.model.tier_rules import Known, Rule

#: A study's last use is written at most once in so long [s].
USE_INTERVAL_S = 3600


def rules(database: Database) -> list[Rule]:
    """The rules that were added, the oldest first."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT rule FROM tier_rule WHERE tenant_id = %s ORDER BY added_at, name", (DEFAULT_TENANT,)
        ).fetchall()
    return [Rule.of(row["rule"]) for row in rows]


def put_rule(connection: Connection, rule: Rule, added_at: datetime | None = None) -> None:
    """Add a rule, or write the one of its name anew."""
    connection.execute(
        "INSERT INTO tier_rule (tenant_id, name, rule, added_at) VALUES (%s, %s, %s, coalesce(%s, now()))"
        " ON CONFLICT (tenant_id, name) DO UPDATE SET rule = excluded.rule",
        (DEFAULT_TENANT, rule.name, json.dumps(rule.values), added_at),
    )


def remove_rule(connection: Connection, name: str) -> None:
    """Forget a rule. Raise NotFound if there is none of its name."""
    removed = connection.execute(
        "DELETE FROM tier_rule WHERE tenant_id = %s AND name = %s", (DEFAULT_TENANT, name)
    ).rowcount
    if not removed:
        raise NotFound(f"There is no rule {name} that was added. `pacs tier rule list` shows all.")


def known(database: Database) -> Known:
    """What a rule may name."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT (SELECT array_agg(DISTINCT tier) FROM volume WHERE state = 'active' AND tier < 4) AS tiers,"
            " (SELECT array_agg(DISTINCT modality) FROM study_modality WHERE tenant_id = %(t)s) AS modalities,"
            " (SELECT array_agg(name) FROM device WHERE tenant_id = %(t)s) AS devices,"
            " (SELECT array_agg(name) FROM tenant) AS tenants",
            {"t": DEFAULT_TENANT},
        ).fetchone()
    assert row is not None
    return Known(*(frozenset(row[name] or ()) for name in ("tiers", "modalities", "devices", "tenants")))


def study_key_of(connection: Connection, study_instance_uid: str) -> int:
    """A study's key. Raise NotFound if there is none."""
    row = connection.execute(
        "SELECT study_key FROM study WHERE tenant_id = %s AND study_instance_uid = %s",
        (DEFAULT_TENANT, study_instance_uid),
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no study {study_instance_uid} here. `pacs study list` shows the newest.")
    return int(row["study_key"])


def pin(connection: Connection, study_key: int, reason: str, pinned_at: datetime | None = None) -> None:
    """Keep a study where it is. One that is pinned already gets the new reason."""
    connection.execute(
        "INSERT INTO study_pin (tenant_id, study_key, reason, pinned_at)"
        " SELECT tenant_id, study_key, %s, coalesce(%s, now()) FROM study WHERE study_key = %s"
        " ON CONFLICT (study_key) DO UPDATE SET reason = excluded.reason",
        (reason, pinned_at, study_key),
    )


def unpin(connection: Connection, study_key: int) -> bool:
    """Let a study move again. False if it was not pinned."""
    return connection.execute("DELETE FROM study_pin WHERE study_key = %s", (study_key,)).rowcount == 1


def is_pinned(connection: Connection, study_key: int) -> bool:
    """Whether a study is pinned."""
    return connection.execute("SELECT FROM study_pin WHERE study_key = %s", (study_key,)).fetchone() is not None


def pins(database: Database) -> list[Row]:
    """The pinned studies, the newest pin first: study_instance_uid, reason, pinned_at."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT st.study_instance_uid, p.reason, p.pinned_at FROM study_pin p JOIN study st USING (study_key)"
            " ORDER BY p.pinned_at DESC, st.study_key DESC"
        ).fetchall()


def note_use(database: Database, study_keys: Collection[int]) -> None:
    """Note that studies are used now; a row that is younger than USE_INTERVAL_S is left as it is."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO study_use AS u (tenant_id, study_key) SELECT st.tenant_id, st.study_key FROM study st"
            " WHERE st.study_key = ANY (%s) ORDER BY st.study_key"
            " ON CONFLICT (study_key) DO UPDATE SET used_at = now()"
            " WHERE u.used_at < now() - make_interval(secs => %s)",
            (sorted(study_keys), USE_INTERVAL_S),
        )


@dataclass(frozen=True)
class Wish:
    """Which studies are looked for: those with good copies on some volumes, settled, and what a rule adds."""

    sources: Sequence[str]
    settle_s: float
    rule: Rule | None = None
    #: AE titles of the rule's devices.
    ae_titles: Sequence[str] = ()
    #: A study that was recalled within so long does not go to tier 3 [s].
    recall_keep_s: float = 0
    #: Also those that are pinned: a volume is emptied, and what is pinned stays on its tier.
    with_pinned: bool = False
    without: Sequence[int] = ()


# A study whose association is open is not settled: its receiver holds the association's advisory lock.
_STUDIES = """
    WITH here AS (
        SELECT se.study_key, count(*) AS objects, sum(o.size_bytes)::bigint AS size_bytes
          FROM copy c JOIN object o USING (object_key) JOIN series se USING (series_key)
         WHERE c.volume_id = ANY (%(sources)s::uuid[]) AND c.state = 'good' {copies}
         GROUP BY se.study_key)
    SELECT st.study_key, st.study_instance_uid, h.objects, h.size_bytes, a.last_arrival, u.used_at,
           greatest(a.last_arrival, u.used_at) AS last_use, pin.study_key IS NOT NULL AS is_pinned
      FROM here h JOIN study st USING (study_key)
      LEFT JOIN study_use u USING (study_key) LEFT JOIN study_pin pin USING (study_key)
     CROSS JOIN LATERAL (
           SELECT max(o.arrived_at) AS last_arrival, array_agg(DISTINCT o.association_key) AS associations
             FROM series se JOIN object o USING (series_key) WHERE se.study_key = st.study_key) a
     WHERE a.last_arrival < now() - make_interval(secs => %(settle_s)s)
       AND NOT EXISTS (
           SELECT FROM association x
             JOIN pg_locks l ON l.locktype = 'advisory' AND l.classid = %(lock_class)s AND l.objid = x.session_key
            WHERE x.closed_at IS NULL AND x.association_key = ANY (a.associations))
       {conditions}
     ORDER BY last_use, st.study_key
     LIMIT %(studies_max)s
"""


def studies(connection: Connection, wish: Wish, studies_max: int) -> list[Row]:
    """The studies that a wish is about, the one used longest ago first: study_key, study_instance_uid, objects and
    size_bytes on these volumes, last_arrival, used_at (None: never retrieved), last_use, is_pinned."""
    conditions, parameters = [], {
        "sources": list(wish.sources), "settle_s": wish.settle_s, "studies_max": studies_max,
        "lock_class": SESSION_LOCK_CLASS, "without": list(wish.without),
    }  # fmt: skip
    copies = ""
    if not wish.with_pinned:
        conditions.append("AND pin.study_key IS NULL")
    if wish.without:
        conditions.append("AND st.study_key <> ALL (%(without)s)")
    if wish.rule is not None:
        conditions += _conditions(wish.rule, parameters)
        parameters |= {"ae_titles": list(wish.ae_titles), "recall_keep_s": wish.recall_keep_s}
        if wish.rule.keep:
            copies = (
                "AND NOT EXISTS (SELECT FROM copy k JOIN volume v USING (volume_id)"
                " WHERE k.object_key = c.object_key AND k.state = 'good' AND v.tier BETWEEN %(to_tier)s AND 3)"
            )
    statement = _STUDIES.format(copies=copies, conditions="\n".join(conditions))
    return connection.execute(statement.encode(), parameters).fetchall()


def _conditions(rule: Rule, parameters: dict[str, Any]) -> list[str]:
    parameters |= {"to_tier": rule.to_tier, "age_days": rule.age_days, "unused_days": rule.unused_days}
    parameters |= {"modalities": list(rule.modalities), "tenants": list(rule.tenants)}
    found = []
    if rule.age_days is not None and rule.age_of == "arrival":
        found.append("AND a.last_arrival < now() - make_interval(secs => 86400 * %(age_days)s::float8)")
    elif rule.age_days is not None:  # a study without a date is as old as its arrival says
        found.append(
            "AND CASE WHEN st.study_date ~ '^[0-9]{8}$' THEN st.study_date"
            " ELSE to_char(a.last_arrival, 'YYYYMMDD') END"
            " < to_char(now() - make_interval(secs => 86400 * %(age_days)s::float8), 'YYYYMMDD')"
        )
    if rule.unused_days is not None:
        found.append(
            "AND greatest(a.last_arrival, u.used_at) < now() - make_interval(secs => 86400 * %(unused_days)s::float8)"
        )
    if rule.modalities:
        found.append(
            "AND EXISTS (SELECT FROM series x WHERE x.study_key = st.study_key AND x.modality = ANY (%(modalities)s))"
        )
    if rule.devices:
        found.append(
            "AND EXISTS (SELECT FROM association x WHERE x.association_key = ANY (a.associations)"
            " AND x.calling_ae = ANY (%(ae_titles)s))"
        )
    if rule.tenants:
        found.append("AND st.tenant_id IN (SELECT tenant_id FROM tenant WHERE name = ANY (%(tenants)s))")
    if rule.to_tier == 3 and not rule.keep:
        found.append(
            "AND NOT EXISTS (SELECT FROM recall r WHERE r.study_key = st.study_key AND (r.state = 'open'"
            " OR (r.state = 'done' AND r.finished_at > now() - make_interval(secs => %(recall_keep_s)s))))"
        )
    return found


def ae_titles_of(database: Database, device_names: Collection[str]) -> list[str]:
    """The AE titles that some devices call with."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT ae_title, aliases FROM device WHERE tenant_id = %s AND name = ANY (%s)",
            (DEFAULT_TENANT, list(device_names)),
        ).fetchall()
    return sorted({title for row in rows for title in (row["ae_title"], *row["aliases"])})


def on_volumes(database: Database) -> Mapping[str, Row]:
    """By volume id: objects and size_bytes that are there in service, leaving_objects and leaving_bytes that have left
    and whose files go when their grace time is over, lost_objects whose file is missing or bad."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT c.volume_id::text, count(*) FILTER (WHERE c.state = 'good') AS objects,"
            " coalesce(sum(o.size_bytes) FILTER (WHERE c.state = 'good'), 0)::bigint AS size_bytes,"
            " count(*) FILTER (WHERE c.state = 'leaving') AS leaving_objects,"
            " coalesce(sum(o.size_bytes) FILTER (WHERE c.state = 'leaving'), 0)::bigint AS leaving_bytes,"
            " count(*) FILTER (WHERE c.state IN ('missing', 'bad')) AS lost_objects"
            " FROM copy c JOIN object o USING (object_key) GROUP BY c.volume_id"
        ).fetchall()
    return {row["volume_id"]: row for row in rows}


def bytes_leaving(connection: Connection, volume_ids: Sequence[str]) -> int:
    """Bytes of files on some volumes whose copies have left them."""
    row = connection.execute(
        "SELECT coalesce(sum(o.size_bytes), 0)::bigint AS size_bytes FROM copy c JOIN object o USING (object_key)"
        " WHERE c.volume_id = ANY (%s::uuid[]) AND c.state = 'leaving'",
        (list(volume_ids),),
    ).fetchone()
    assert row is not None
    return int(row["size_bytes"])


def note_absent(database: Database, volume_ids: Collection[str]) -> None:
    """Note which volumes are not here now; rows are written only where that has changed."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE volume SET absent_since = CASE WHEN absent_since IS NULL THEN now() END"
            " WHERE (absent_since IS NOT NULL) <> (volume_id = ANY (%s::uuid[]))",
            (list(volume_ids),),
        )
