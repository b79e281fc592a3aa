"""The end of a rebuild: what is missing, what was left out, and the rebuild's own tables gone."""

from __future__ import annotations

from collections.abc import Iterator

from pacs.index.database import Connection, Row
from pacs.index.rebuild import state


def unreceipted(connection: Connection) -> Iterator[Row]:
    """Objects that no receipt tells of, as receipts name them."""
    with connection.cursor(name="unreceipted") as cursor:
        cursor.execute(
            "SELECT o.sha256, o.sop_instance_uid, o.arrived_at, st.study_instance_uid, o.association_key"
            " FROM object o JOIN series se USING (series_key) JOIN study st USING (study_key)"
            " LEFT JOIN rebuild.receipt r ON r.sha256 = o.sha256 AND r.sop_instance_uid = o.sop_instance_uid"
            " WHERE r.sha256 IS NULL ORDER BY o.object_key"
        )
        yield from cursor


def without_file(connection: Connection, rows_max: int) -> tuple[int, list[Row]]:
    """Objects that receipts tell of and no volume has: how many, and the first of them with who sent them."""
    row = connection.execute("SELECT count(*) AS count FROM rebuild.receipt WHERE NOT is_found").fetchone()
    found = connection.execute(
        "SELECT r.study_instance_uid, r.sop_instance_uid, r.arrived_at, coalesce(a.calling_ae, '') AS calling_ae"
        " FROM rebuild.receipt r LEFT JOIN association a USING (association_key) WHERE NOT r.is_found"
        " ORDER BY r.arrived_at LIMIT %s",
        (rows_max,),
    ).fetchall()
    assert row is not None
    return row["count"], found


def left_out(connection: Connection, rows_max: int) -> tuple[int, list[Row]]:
    """Files that were left out: how many, and the first of them with the reason."""
    row = connection.execute("SELECT count(*) AS count FROM rebuild.left_out").fetchone()
    found = connection.execute(
        "SELECT volume_id::text, path, reason FROM rebuild.left_out ORDER BY 1, 2 LIMIT %s", (rows_max,)
    ).fetchall()
    assert row is not None
    return row["count"], found


def counts(connection: Connection) -> Row:
    """How many studies, objects and copies there are, and files of which an object has one on its volume already."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM study) AS studies, (SELECT count(*) FROM object) AS objects,"
        " (SELECT count(*) FROM copy) AS copies,"
        " (SELECT coalesce(sum(files), 0)::bigint FROM rebuild.day) - (SELECT count(*) FROM copy) AS spare"
    ).fetchone()
    assert row is not None
    return row


def finish(connection: Connection) -> None:
    """What came again; all references checked; the rebuild's own tables gone. In one transaction of the caller's."""
    connection.execute(
        "INSERT INTO duplicate (tenant_id, object_key, association_key, kind, arrived_at)"
        " SELECT DISTINCT o.tenant_id, o.object_key, g.association_key, g.kind, g.arrived_at"
        " FROM rebuild.again g JOIN object o ON o.sop_instance_uid = g.sop_instance_uid AND o.sha256 = g.sha256"
        " ORDER BY g.arrived_at"
    )
    connection.execute(
        "UPDATE association a SET closed_at = coalesce((SELECT max(arrived_at) FROM rebuild.receipt r"
        " WHERE r.association_key = a.association_key), a.opened_at) WHERE a.closed_at IS NULL"
    )
    for check in state(connection, "checks"):
        connection.execute(
            f'ALTER TABLE {check["table"]} ADD CONSTRAINT "{check["name"]}" {check["definition"]}'.encode()
        )
    connection.execute("DROP SCHEMA rebuild CASCADE")
    connection.execute("ANALYZE")
