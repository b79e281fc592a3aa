"""What arrived last, and how much there is: from whom and of what kind, nothing of a patient."""

from __future__ import annotations

from pacs.index.database import Database, Row

#: Counting stops here: whether there is a first image, or a tenth, is asked each few seconds.
COUNTED_MAX = 1000


def newest(database: Database, limit: int) -> list[Row]:
    """The objects that arrived last, the newest first: arrived_at, sop_class_uid, calling_ae, peer, size_bytes."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT o.arrived_at, o.sop_class_uid, o.size_bytes, a.calling_ae, a.peer FROM object o"
            " LEFT JOIN association a USING (association_key) ORDER BY o.object_key DESC LIMIT %s",
            (limit,),
        ).fetchall()


def objects_up_to(database: Database, most: int = COUNTED_MAX) -> int:
    """How many objects there are, at most `most`."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) AS objects FROM (SELECT 1 FROM object LIMIT %s) AS counted", (most,)
        ).fetchone()
    assert row is not None
    return int(row["objects"])
