"""Queries of a retrieve: the objects below some entities, with all their copies, in one round trip."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pacs.index.database import Connection, Database, Row
from pacs.index.store import DEFAULT_TENANT

#: Keyword of a unique key → the column that holds it (PS3.4 C.6.1.1, C.6.2.1).
_COLUMNS = {
    "PatientID": "p.patient_id",
    "IssuerOfPatientID": "p.issuer_of_patient_id",
    "StudyInstanceUID": "st.study_instance_uid",
    "SeriesInstanceUID": "se.series_instance_uid",
    "SOPInstanceUID": "o.sop_instance_uid",
}
#: Nearest tier first; a copy that is leaving is there for its grace time yet, and better than none: its tier is 9.
_COPIES = """
    SELECT array_agg(c.copy_key ORDER BY c.state = 'leaving', v.tier) AS copy_keys,
           array_agg(c.volume_id::text ORDER BY c.state = 'leaving', v.tier) AS volume_ids,
           array_agg(c.path ORDER BY c.state = 'leaving', v.tier) AS paths,
           array_agg(CASE c.state WHEN 'good' THEN v.tier ELSE 9 END ORDER BY c.state = 'leaving', v.tier) AS tiers
      FROM copy c JOIN volume v USING (volume_id)
     WHERE c.object_key = o.object_key AND c.state IN ('good', 'leaving')
"""


def objects_below(database: Database, unique_keys: Mapping[str, Collection[str]]) -> list[Row]:
    """Every current object below the entities with these unique keys, in order of arrival.

    Rows of study_key, object_key, sop_instance_uid, sop_class_uid, transfer_syntax_uid, size_bytes, and of the object's
    good copies copy_keys, volume_ids, paths, tiers: lists of equal length, None if there is no copy.
    """
    conditions, parameters = ["o.tenant_id = %(tenant_id)s", "o.is_current"], _parameters(unique_keys)
    conditions += [f"{_COLUMNS[keyword]} = ANY (%({keyword})s)" for keyword in unique_keys]
    statement = (
        "SELECT st.study_key, o.object_key, o.sop_instance_uid, o.sop_class_uid, o.transfer_syntax_uid, o.size_bytes,"
        " copies.*"
        " FROM object o JOIN series se USING (series_key) JOIN study st USING (study_key)"
        f" JOIN patient p USING (patient_key) CROSS JOIN LATERAL ({_COPIES}) copies"
        f" WHERE {' AND '.join(conditions)} ORDER BY o.object_key"
    )
    with database.transaction() as connection:
        return connection.execute(statement.encode(), parameters).fetchall()


def _parameters(unique_keys: Mapping[str, Collection[str]]) -> dict[str, Any]:
    return {"tenant_id": DEFAULT_TENANT, **{keyword: list(values) for keyword, values in unique_keys.items()}}


def copies_of(connection: Connection, object_key: int) -> Row:
    """An object's copies now: copy_keys, volume_ids, paths, tiers as objects_below has them."""
    row = connection.execute(
        f"SELECT copies.* FROM (SELECT %s::bigint AS object_key) o CROSS JOIN LATERAL ({_COPIES}) copies".encode(),
        (object_key,),
    ).fetchone()
    assert row is not None
    return row


def withdraw_copy(connection: Connection, copy_key: int, path: str, state: str) -> bool:
    """Take a copy whose file was found missing or bad out of service, if it is still the one at path. True if done."""
    return (
        connection.execute(
            "UPDATE copy SET state = %s, left_at = NULL WHERE copy_key = %s AND path = %s AND state = 'good'",
            (state, copy_key, path),
        ).rowcount
        == 1
    )
