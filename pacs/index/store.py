"""Queries of the receive path: one function call an object, and the receivers' own rows."""

from __future__ import annotations

import json
from dataclasses import dataclass

from psycopg.errors import ForeignKeyViolation

from pacs.errors import VolumeMissing
from pacs.index.database import SESSION_LOCK_CLASS, Connection, Database, Row
from pacs.model import names
from pacs.model.record import IndexRecord, lone_study_uid
from pacs.model.uids import NON_PATIENT_SOP_CLASSES

DEFAULT_TENANT = 1

#: How many of the newest objects say which transfer syntaxes are most stored.
NEWEST_OBJECTS = 2000


@dataclass(frozen=True)
class StoredFile:
    """Where an object's file is, and what it is."""

    volume_id: str
    path: str
    sha256: bytes
    size_bytes: int


def store(
    connection: Connection,
    record: IndexRecord,
    transfer_syntax_uid: str,
    file: StoredFile,
    association_key: int | None,
    keep_beside: bool = False,
    tenant_id: int = DEFAULT_TENANT,
) -> tuple[str, int]:
    """Insert an object: (outcome, object key), as pacs_store in 0001_initial.sql says.

    Raise VolumeMissing if the file's volume was retired meanwhile.
    """
    try:
        row = connection.execute(
            "SELECT * FROM pacs_store(%s, %s, %s, %s, %s, %s, %s)",
            (
                fields_of(record, transfer_syntax_uid, tenant_id),
                file.sha256,
                file.size_bytes,
                file.volume_id,
                file.path,
                association_key,
                keep_beside,
            ),
        ).fetchone()
    except ForeignKeyViolation as error:
        raise VolumeMissing("The volume was retired while the object came to it. It should be sent again.") from error
    assert row is not None
    return row["outcome"], row["found_object_key"]


def fields_of(record: IndexRecord, transfer_syntax_uid: str, tenant_id: int = DEFAULT_TENANT) -> str:
    """What pacs_store is told of an object, as JSON."""
    patient_name = str(record.values["patient_name"])
    fields = {
        **record.values,
        **record.sequences,
        "tenant_id": tenant_id,
        "transfer_syntax_uid": transfer_syntax_uid,
        "lone_study_uid": lone_study_uid(record),
        "is_patients": record.sop_class_uid not in NON_PATIENT_SOP_CLASSES,
        "patient_name_keys": names.group_keys(patient_name),
        "patient_name_words": names.words(patient_name),
        "referring_physician_name_key": "=".join(names.group_keys(str(record.values["referring_physician_name"]))),
    }
    return json.dumps(fields)


def object_key_of(connection: Connection, sop_instance_uid: str, sha256: bytes) -> int | None:
    """The key of an object by its UID and its bytes; None if it is not here."""
    row = connection.execute(
        "SELECT object_key FROM object WHERE tenant_id = %s AND sop_instance_uid = %s AND sha256 = %s",
        (DEFAULT_TENANT, sop_instance_uid, sha256),
    ).fetchone()
    return int(row["object_key"]) if row else None


def series_of(connection: Connection, object_key: int) -> int | None:
    """The series that an object is in; None if it is gone."""
    row = connection.execute("SELECT series_key FROM object WHERE object_key = %s", (object_key,)).fetchone()
    return int(row["series_key"]) if row else None


def note_same_content(connection: Connection, object_key: int, association_key: int | None) -> None:
    """Count an arrival of an object that is here already in another encoding."""
    connection.execute(
        "INSERT INTO duplicate (tenant_id, object_key, association_key, kind)"
        " SELECT tenant_id, object_key, %s, 'same content' FROM object WHERE object_key = %s",
        (association_key, object_key),
    )


def most_stored_syntaxes(database: Database) -> dict[str, str]:
    """SOP class → the transfer syntax that most of its objects among the last to arrive are stored in.

    A class that none of them is of has the one that came first. The cost does not grow with the archive.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT DISTINCT ON (s.sop_class_uid) s.sop_class_uid, s.transfer_syntax_uid FROM stored_syntax s"
            " LEFT JOIN (SELECT sop_class_uid, transfer_syntax_uid, count(*) AS objects"
            "   FROM (SELECT sop_class_uid, transfer_syntax_uid FROM object ORDER BY object_key DESC LIMIT %s) newest"
            "   GROUP BY 1, 2) n USING (sop_class_uid, transfer_syntax_uid)"
            " ORDER BY s.sop_class_uid, n.objects DESC NULLS LAST, s.ctid",
            (NEWEST_OBJECTS,),
        ).fetchall()
    return {row["sop_class_uid"]: row["transfer_syntax_uid"] for row in rows}


def open_session(connection: Connection) -> int:
    """Begin a receiver's session on its own connection: a number whose lock lasts as long as the connection."""
    row = connection.execute("SELECT nextval('receiver_session') AS key").fetchone()
    assert row is not None
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (SESSION_LOCK_CLASS, row["key"]))
    return int(row["key"])


def open_association(
    database: Database,
    session_key: int,
    calling_ae: str,
    peer: str,
    user_name: str = "",
    default_character_set: str = "",
    tls_certificate_sha256: str = "",
) -> int:
    """Note an association that was accepted; return its key."""
    with database.transaction() as connection:
        row = connection.execute(
            "INSERT INTO association"
            " (session_key, calling_ae, peer, user_name, default_character_set, tls_certificate_sha256)"
            " VALUES (%s, %s, %s, %s, %s, %s) RETURNING association_key",
            (session_key, calling_ae, peer, user_name, default_character_set, tls_certificate_sha256),
        ).fetchone()
    assert row is not None
    return int(row["association_key"])


def close_association(database: Database, association_key: int) -> None:
    """Note that an association has ended."""
    with database.transaction() as connection:
        connection.execute("UPDATE association SET closed_at = now() WHERE association_key = %s", (association_key,))


def good_copies(connection: Connection, object_key: int) -> list[Row]:
    """An object's good copies, nearest tier first: transfer_syntax_uid, volume_id, path."""
    return connection.execute(
        "SELECT o.transfer_syntax_uid, c.volume_id::text, c.path"
        " FROM object o JOIN copy c USING (object_key) JOIN volume v USING (volume_id)"
        " WHERE o.object_key = %s AND c.state = 'good' ORDER BY v.tier, c.copy_key",
        (object_key,),
    ).fetchall()
