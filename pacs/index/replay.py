"""Queries of the journal's replay: conflicts found by what they were about, decided as they were, when they were."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pacs.index import conflicts
from pacs.index.database import Connection, Row

_FIND = {
    "object": "SELECT c.* FROM conflict c JOIN object o ON o.object_key = c.other_key"
    " WHERE o.sop_instance_uid = %(sop_instance_uid)s AND o.sha256 = decode(%(sha256)s, 'hex')",
    "series": "SELECT c.* FROM conflict c JOIN series s ON s.series_key = c.subject_key JOIN study st USING (study_key)"
    " JOIN series x ON x.series_key::text = c.other JOIN study xt ON xt.study_key = x.study_key"
    " WHERE c.kind = 'series' AND s.series_instance_uid = %(series_instance_uid)s"
    " AND st.study_instance_uid = %(study_instance_uid)s AND xt.study_instance_uid = %(other_study_instance_uid)s",
    "study": "SELECT c.* FROM conflict c JOIN study st ON st.study_key = c.subject_key"
    " WHERE c.kind = 'study' AND st.study_instance_uid = %(study_instance_uid)s"
    " AND c.came->>'patient_id' = %(patient_id)s AND c.came->>'issuer_of_patient_id' = %(issuer_of_patient_id)s",
    "patient": "SELECT c.* FROM conflict c WHERE c.kind = 'patient'"
    " AND c.came->>'study_instance_uid' = %(study_instance_uid)s AND c.came->>'patient_id' = %(patient_id)s"
    " AND c.came->>'issuer_of_patient_id' = %(issuer_of_patient_id)s AND c.came->>'patient_name' = %(patient_name)s",
}


def find_conflict(connection: Connection, decided: dict[str, Any]) -> Row | None:
    """The conflict that a journalled decision is about; None if there is none here."""
    kind = "object" if decided["kind"] in conflicts.OF_OBJECTS else decided["kind"]
    values = {**decided.get("came", {}), **decided}
    row: Row | None = connection.execute(f"{_FIND[kind]} ORDER BY c.conflict_key LIMIT 1".encode(), values).fetchone()
    return row


def decide(connection: Connection, conflict: Row, resolution: str, at: datetime) -> None:
    """Do to a conflict what was decided, as of when it was decided. An object under a new UID is a file by now."""
    key, came = conflict["subject_key"], conflict["came"]
    if resolution == "replace" and conflict["kind"] == "study":
        conflicts.move_study(connection, key, came)
    elif resolution == "replace" and conflict["kind"] == "patient":
        conflicts.rename_patient(connection, key, came)
    elif resolution == "replace":
        conflicts.make_current(connection, conflict["other_key"])
    conflicts.resolve(connection, conflict["conflict_key"], resolution)
    # now() is the transaction's: no other row has it but those of this decision.
    connection.execute(
        "UPDATE conflict SET resolved_at = %s, raised_at = least(raised_at, %s) WHERE resolved_at = now()", (at, at)
    )


def is_stored(connection: Connection, sop_instance_uid: str) -> bool:
    """Whether there is an object of a UID, or will be with the files that are at hand."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM object WHERE sop_instance_uid = %(uid)s)"
        " OR EXISTS (SELECT FROM rebuild.receipt WHERE sop_instance_uid = %(uid)s) AS found",
        {"uid": sop_instance_uid},
    ).fetchone()
    if row is not None and row["found"]:
        return True
    if connection.execute("SELECT to_regclass('loading') IS NULL AS none").fetchone() == {"none": True}:
        return False
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM loading WHERE sop_instance_uid = %s) AS found", (sop_instance_uid,)
    ).fetchone()
    return row is not None and bool(row["found"])


def has_object(connection: Connection, sop_instance_uid: str) -> bool:
    """Whether there is an object of a UID."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM object WHERE sop_instance_uid = %s) AS found", (sop_instance_uid,)
    ).fetchone()
    return row is not None and bool(row["found"])


def put_dismissed(connection: Connection, refusals: Sequence[dict[str, Any]]) -> None:
    """Refusals that a person took off the list: none has been counted here, and none will be shown."""
    for refusal in refusals:
        connection.execute(
            "INSERT INTO refusal (calling_ae, address, kind, detail, called_ae, device_name, reason, wanted,"
            " sop_instance_uid, count, first_at, last_at, dismissed_at) VALUES (%(calling_ae)s, %(address)s, %(kind)s,"
            " %(detail)s, '', '', %(reason)s, '{}', '', 0, %(at)s, %(at)s, %(at)s) ON CONFLICT DO NOTHING",
            refusal,
        )
