"""What recovery points ask of the index."""

from __future__ import annotations

from pacs.index.database import Database
from pacs.index.shipping import LACKED, state


def newest_object_key(database: Database) -> int:
    """The highest key of an object that can be seen now; 0 if there is none."""
    with database.transaction() as connection:
        row = connection.execute("SELECT coalesce(max(object_key), 0) AS newest FROM object").fetchone()
    assert row is not None
    return int(row["newest"])


def lacks_object(database: Database, volume_id: str, newest_key: int) -> bool:
    """Whether a repository lacks an object with a key up to this one, of which there is a good copy."""
    with database.transaction() as connection:
        found = state(connection, volume_id)
        row = connection.execute(
            f"SELECT EXISTS (SELECT FROM object o WHERE {LACKED} AND o.object_key <= %(newest)s) AS lacks".encode(),
            {"newest": newest_key, "volume_ids": [volume_id], "after": (found or {}).get("position") or 0},
        ).fetchone()
    assert row is not None
    return bool(row["lacks"])
