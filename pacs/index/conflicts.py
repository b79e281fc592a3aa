"""Queries about conflicts: what came and contradicts what was here, and what a person decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pacs.errors import NotFound, UsageError
from pacs.index.database import Connection, Database, Row

Decision = Literal["keep", "replace", "new-uids"]
DECISIONS: tuple[Decision, ...] = ("keep", "replace", "new-uids")

#: Kind → what it is in words, and what can be decided.
KINDS: dict[str, tuple[str, tuple[Decision, ...]]] = {
    "content": ("one SOP Instance UID, two contents", DECISIONS),
    "place": ("one SOP Instance UID in two series or studies", DECISIONS),
    "series": ("one Series Instance UID in two studies", ("keep",)),
    "study": ("one study under two patients", ("keep", "replace")),
    "patient": ("one PatientID with two names", ("keep", "replace")),
}
OF_OBJECTS = ("content", "place")

_SELECT = """
    SELECT c.conflict_key, c.kind, c.subject_key, c.other, c.other_key, c.came, c.raised_at, c.resolved_at,
           c.resolution FROM conflict c
"""


def list_conflicts(database: Database, with_resolved: bool = False) -> list[Row]:
    """Every conflict, the oldest first."""
    with database.transaction() as connection:
        return connection.execute(
            f"{_SELECT} WHERE %s OR c.resolved_at IS NULL ORDER BY c.conflict_key".encode(), (with_resolved,)
        ).fetchall()


def conflict(database: Database, conflict_key: int) -> Row:
    """One conflict. Raise NotFound if there is none of that number."""
    with database.transaction() as connection:
        row = connection.execute(f"{_SELECT} WHERE c.conflict_key = %s".encode(), (conflict_key,)).fetchone()
    if row is None:
        raise NotFound(f"There is no conflict {conflict_key}. `pacs conflict list` shows them.")
    return row


def counts(database: Database) -> dict[str, int]:
    """Kind → how many conflicts of it wait for a person."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT kind, count(*) AS count FROM conflict WHERE resolved_at IS NULL GROUP BY kind ORDER BY kind"
        ).fetchall()
    return {row["kind"]: row["count"] for row in rows}


_OBJECT = """
    SELECT o.object_key, o.sop_instance_uid, o.sop_class_uid, o.transfer_syntax_uid, o.sha256, o.size_bytes,
           o.arrived_at, o.is_current, se.series_instance_uid, st.study_instance_uid, a.calling_ae, a.peer
      FROM object o JOIN series se USING (series_key) JOIN study st USING (study_key)
      LEFT JOIN association a ON a.association_key = o.association_key
"""


def object_with(database: Database, object_key: int) -> Row:
    """An object: what it is, where it belongs, when it came and from whom."""
    with database.transaction() as connection:
        row = connection.execute(f"{_OBJECT} WHERE o.object_key = %s".encode(), (object_key,)).fetchone()
    assert row is not None, "objects are never deleted while a conflict names them"
    return row


def current_object(database: Database, sop_instance_uid: str) -> Row:
    """The object that is current under a SOP Instance UID."""
    with database.transaction() as connection:
        row = connection.execute(
            f"{_OBJECT} WHERE o.sop_instance_uid = %s AND o.is_current".encode(), (sop_instance_uid,)
        ).fetchone()
    assert row is not None, "one of the objects of a UID is always current"
    return row


_SUBJECTS = {
    "study": "SELECT st.study_instance_uid, p.patient_id, p.issuer_of_patient_id, p.lone_study_uid, p.patient_name,"
    " p.patient_birth_date, p.patient_sex FROM study st JOIN patient p USING (patient_key) WHERE st.study_key = %s",
    "series": "SELECT se.series_instance_uid, st.study_instance_uid, p.patient_id, p.issuer_of_patient_id,"
    " p.patient_name FROM series se JOIN study st USING (study_key) JOIN patient p USING (patient_key)"
    " WHERE se.series_key = %s",
    "patient": "SELECT p.patient_id, p.issuer_of_patient_id, p.lone_study_uid, p.patient_name, p.patient_birth_date,"
    " p.patient_sex FROM patient p WHERE p.patient_key = %s",
}


def subject(database: Database, kind: str, subject_key: int) -> Row:
    """What is here, of a conflict of kind 'study', 'series' or 'patient'."""
    with database.transaction() as connection:
        row = connection.execute(_SUBJECTS[kind].encode(), (subject_key,)).fetchone()
    if row is None:
        raise NotFound("What the conflict is about is no longer here. Resolve it with --keep.")
    return row


@contextmanager
def deciding(database: Database, conflict_key: int) -> Iterator[tuple[Connection, Row]]:
    """A conflict that waits for a decision, in a transaction that keeps others from deciding it meanwhile.

    Raise NotFound if there is none, UsageError if it was decided already.
    """
    with database.transaction() as connection:
        row = connection.execute(f"{_SELECT} WHERE c.conflict_key = %s FOR UPDATE".encode(), (conflict_key,)).fetchone()
        if row is None:
            raise NotFound(f"There is no conflict {conflict_key}. `pacs conflict list` shows them.")
        if row["resolved_at"] is not None:
            raise UsageError(f"Conflict {conflict_key} was resolved already. `pacs conflict list --all` shows how.")
        yield connection, row


def resolve(connection: Connection, conflict_key: int, resolution: str) -> None:
    """Note a decision."""
    connection.execute(
        "UPDATE conflict SET resolved_at = now(), resolution = %s WHERE conflict_key = %s", (resolution, conflict_key)
    )


def make_current(connection: Connection, object_key: int) -> None:
    """Make an object the current one of its UID; the one that was stays as history."""
    connection.execute(
        "UPDATE object SET is_current = false WHERE is_current AND (tenant_id, sop_instance_uid) ="
        " (SELECT tenant_id, sop_instance_uid FROM object WHERE object_key = %s)",
        (object_key,),
    )
    connection.execute("UPDATE object SET is_current = true WHERE object_key = %s", (object_key,))


def move_study(connection: Connection, study_key: int, came: dict[str, Any]) -> None:
    """Put a study under the patient of `came`, made if it is new. The one that it was under is no conflict any more."""
    former = connection.execute(
        "SELECT p.patient_id, p.issuer_of_patient_id, p.lone_study_uid FROM study st JOIN patient p"
        " USING (patient_key) WHERE st.study_key = %s FOR UPDATE OF st",
        (study_key,),
    ).fetchone()
    connection.execute(
        "UPDATE study SET patient_key = pacs_patient(tenant_id, %s) WHERE study_key = %s", (json.dumps(came), study_key)
    )
    _settle(connection, "study", study_key, "pacs_identity(%s)", json.dumps(former))


def rename_patient(connection: Connection, patient_key: int, came: dict[str, Any]) -> None:
    """Give a patient the name, birth date and sex of `came`. The name that it had is no conflict any more."""
    former = connection.execute(
        "SELECT patient_name, pacs_names_of(patient_key)::text AS names FROM patient WHERE patient_key = %s FOR UPDATE",
        (patient_key,),
    ).fetchone()
    assert former is not None, "patients are never deleted"
    values = {**came, "patient_key": patient_key, "came": json.dumps(came)}
    for statement in (
        "UPDATE patient SET patient_name = %(patient_name)s, patient_birth_date = %(patient_birth_date)s,"
        " patient_sex = %(patient_sex)s WHERE patient_key = %(patient_key)s",
        "DELETE FROM patient_name WHERE patient_key = %(patient_key)s",
        "DELETE FROM patient_sound WHERE patient_key = %(patient_key)s",
        "SELECT pacs_name_patient(tenant_id, patient_key, %(came)s) FROM patient WHERE patient_key = %(patient_key)s",
    ):
        connection.execute(statement.encode(), values)
    kept = {"patient_name": former["patient_name"]}
    _settle(connection, "patient", patient_key, "pacs_digest(%s)", former["names"], kept)


def _settle(
    connection: Connection, kind: str, subject_key: int, other: str, value: str, came: Row | None = None
) -> None:
    """Note that what was here before a decision is decided about, too: it is not raised when it comes again."""
    connection.execute(
        "INSERT INTO conflict (tenant_id, kind, subject_key, other, came, resolved_at, resolution)"
        f" VALUES (1, %s, %s, {other}, %s, now(), 'replaced') ON CONFLICT (tenant_id, kind, subject_key, other)"
        " DO UPDATE SET resolved_at = now(), resolution = 'replaced' WHERE conflict.resolved_at IS NULL".encode(),
        (kind, subject_key, value, json.dumps(came) if came is not None else value),
    )
