"""Queries of the drill: of the restored database, and of the living one that it is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pacs.index.database import Connection, Database, Row
from pacs.index.volumes import KnownVolume, insert_volume


def make_harmless(connection: Connection, kept: KnownVolume, nowhere: Path) -> None:
    """In a restored database: let every volume but the repository be nowhere, and nobody be there to be called, so that
    the living archive's volumes are not touched and no device hears of it."""
    connection.execute("DELETE FROM commitment")
    connection.execute("DELETE FROM device")
    connection.execute(
        "UPDATE volume SET kind = 'local', options = '{}', location = %s || name WHERE volume_id <> %s",
        (f"{nowhere}/", kept.volume_id),
    )
    insert_volume(connection, kept)


def known(database: Database, through_object_key: int) -> Row:
    """objects, and of these those up to a key (through); the newest key."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) AS objects, count(*) FILTER (WHERE object_key <= %s) AS through,"
            " coalesce(max(object_key), 0) AS newest FROM object",
            (through_object_key,),
        ).fetchone()
    assert row is not None
    return row


_SAMPLED = (
    "SELECT o.object_key, o.sha256, o.size_bytes, o.sop_instance_uid, o.sop_class_uid, o.transfer_syntax_uid,"
    " o.is_current, se.series_instance_uid, st.study_instance_uid, st.is_patients, c.copy_key,"
    " c.volume_id::text, c.path"
    " FROM object o JOIN series se USING (series_key) JOIN study st USING (study_key)"
    " LEFT JOIN copy c ON c.object_key = o.object_key AND c.volume_id = %(volume)s AND c.state = 'good'"
)


def sample(
    database: Database, volume_id: str, ranges: Sequence[tuple[bytes, bytes]], size_bytes_max: int | None
) -> tuple[list[Row], bool]:
    """The objects whose digests are in these ranges, in that order, and whether they are all of them; size_bytes_max
    ends it, behind one object at least.

    object_key, sha256, size_bytes, its UIDs, is_current; copy_key, volume_id and path of its copy in the repository, or
    None.
    """
    found: list[Row] = []
    size_bytes = 0
    with database.transaction() as connection:
        for first, last in ranges:
            with connection.cursor(name="sample") as cursor:
                cursor.execute(
                    f"{_SAMPLED} WHERE o.sha256 BETWEEN %(first)s AND %(last)s ORDER BY o.sha256".encode(),
                    {"volume": volume_id, "first": first, "last": last},
                )
                for row in cursor:
                    if found and size_bytes_max is not None and size_bytes + row["size_bytes"] > size_bytes_max:
                        return found, False
                    found.append(row)
                    size_bytes += row["size_bytes"]
    return found, True


def leave_only(database: Database, volume_id: str, object_keys: Sequence[int]) -> None:
    """In a restored database: forget the copies of objects on other volumes, which are nowhere."""
    with database.transaction() as connection:
        connection.execute(
            "DELETE FROM copy WHERE object_key = ANY (%s) AND volume_id <> %s", (list(object_keys), volume_id)
        )


def newest(database: Database, volume_id: str, through_object_key: int, objects_max: int) -> list[Row]:
    """The newest objects up to a key, as `sample` has them."""
    with database.transaction() as connection:
        return connection.execute(
            f"{_SAMPLED} WHERE o.object_key <= %(through)s ORDER BY o.object_key DESC LIMIT %(most)s".encode(),
            {"volume": volume_id, "through": through_object_key, "most": objects_max},
        ).fetchall()


def living_digests(database: Database, sop_instance_uids: Collection[str]) -> Mapping[str, set[bytes]]:
    """Of objects of the living archive the digests that it has under their UID; those that it does not know lack."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT sop_instance_uid, sha256 FROM object WHERE sop_instance_uid = ANY (%s)",
            (list(sop_instance_uids),),
        ).fetchall()
    found: dict[str, set[bytes]] = {}
    for row in rows:
        found.setdefault(row["sop_instance_uid"], set()).add(bytes(row["sha256"]))
    return found
