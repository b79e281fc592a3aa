"""Queries of the scrub: which folders there are, when they were last read, and the copies in them in order of path.

The cluster's locale is C: paths are in the order of their bytes, on disk and here.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from pacs.index.database import Connection, Database, Row
from pacs.model.scrub_plan import Folder

#: The folder that a copy's path counts with: its day's; in a repository, that of the digest's first byte. A path of
#: another shape counts alone.
_FOLDER = "coalesce(substring(path FROM '^(?:objects/[0-9a-f]{2}/(?=[0-9a-f]{2}/[0-9a-f]{64})|(?:[^/]+/){5})'), path)"
#: Every path that begins with a folder's name is below this.
_LAST = "U&'\\+10FFFF'"
#: One look into the index a folder, however many copies it has.
_FOLDERS = f"""
    WITH RECURSIVE found (folder) AS (
        (SELECT {_FOLDER} FROM copy
          WHERE volume_id = %(volume_id)s AND path >= 'objects/' AND path < 'objects0' AND state = 'good'
          ORDER BY path LIMIT 1)
        UNION ALL
        SELECT (SELECT {_FOLDER} FROM copy
                 WHERE volume_id = %(volume_id)s AND path > found.folder || {_LAST} AND path < 'objects0'
                   AND state = 'good' ORDER BY path LIMIT 1)
          FROM found WHERE found.folder IS NOT NULL)
    SELECT folder FROM found WHERE folder IS NOT NULL
"""
_SIZE = f"""
    SELECT count(*) AS copies, coalesce(sum(o.size_bytes), 0)::bigint AS size_bytes,
           min(c.created_at) FILTER (WHERE c.state = 'good') AS oldest_at
      FROM copy c JOIN object o USING (object_key)
     WHERE c.volume_id = %(volume_id)s AND c.path >= %(folder)s AND c.path < %(folder)s || {_LAST}
       AND c.state <> 'leaving'
"""


def refresh_folders(database: Database, volume_id: str, older_than: timedelta) -> None:
    """Note the folders that came to a volume, forget those that left it, count anew what was not for a while."""
    with database.transaction() as connection:
        now = {row["folder"] for row in connection.execute(_FOLDERS.encode(), {"volume_id": volume_id})}
        known = connection.execute(
            "SELECT folder, sized_at < now() - %s AS is_stale FROM fixity WHERE volume_id = %s", (older_than, volume_id)
        ).fetchall()
        gone = [row["folder"] for row in known if row["folder"] not in now]
        connection.execute("DELETE FROM fixity WHERE volume_id = %s AND folder = ANY (%s)", (volume_id, gone))
    stale = now - {row["folder"] for row in known if not row["is_stale"]}
    for folder in sorted(stale):
        with database.transaction() as connection:
            _count(connection, volume_id, folder)


def _count(connection: Connection, volume_id: str, folder: str) -> None:
    row = connection.execute(_SIZE.encode(), {"volume_id": volume_id, "folder": folder}).fetchone()
    assert row is not None
    if row["oldest_at"] is not None:
        connection.execute(
            "INSERT INTO fixity (volume_id, folder, copies, size_bytes, oldest_at) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (volume_id, folder) DO UPDATE SET copies = excluded.copies,"
            " size_bytes = excluded.size_bytes, oldest_at = excluded.oldest_at, sized_at = now()",
            (volume_id, folder, row["copies"], row["size_bytes"], row["oldest_at"]),
        )


def folders(database: Database, volume_ids: Collection[str]) -> list[Folder]:
    """The folders of these volumes, as they were last counted."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT volume_id::text, folder, copies, size_bytes, greatest(verified_at, oldest_at) AS verified_at,"
            " begun_at IS NOT NULL AS is_begun, scrub_days * interval '1 day' AS period"
            " FROM fixity JOIN volume USING (volume_id) WHERE volume_id = ANY (%s::uuid[])",
            (list(volume_ids),),
        ).fetchall()
    return [Folder(**row) for row in found]


def begin(database: Database, volume_id: str, folder: str) -> str:
    """Begin to read a folder, or go on with it: the path after which to go on, empty at its beginning."""
    with database.transaction() as connection:
        row = connection.execute(
            "UPDATE fixity SET begun_at = coalesce(begun_at, now()) WHERE volume_id = %s AND folder = %s"
            " RETURNING position",
            (volume_id, folder),
        ).fetchone()
    return str(row["position"]) if row else ""


def came_to(database: Database, volume_id: str, folder: str, position: str) -> None:
    """Note how far the reading of a folder has come: a kill loses what came after."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE fixity SET position = %s WHERE volume_id = %s AND folder = %s", (position, volume_id, folder)
        )


def complete(database: Database, volume_id: str, folder: str) -> None:
    """Note that every copy that was in a folder when its reading began was read since, and count it anew."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE fixity SET verified_at = begun_at, begun_at = NULL, position = ''"
            " WHERE volume_id = %s AND folder = %s AND begun_at IS NOT NULL",
            (volume_id, folder),
        )
        _count(connection, volume_id, folder)


def copies_after(database: Database, volume_id: str, folder: str, position: str, copies_max: int) -> list[Row]:
    """The next copies in service in a folder by path: copy_key, object_key, path, sha256, size_bytes."""
    statement = f"""
        SELECT c.copy_key, c.object_key, c.path, o.sha256, o.size_bytes FROM copy c JOIN object o USING (object_key)
         WHERE c.volume_id = %(volume_id)s AND c.path >= %(folder)s AND c.path < %(folder)s || {_LAST}
           AND c.path > %(position)s AND c.state = 'good' ORDER BY c.path LIMIT %(copies_max)s
    """
    given = {"volume_id": volume_id, "folder": folder, "position": position, "copies_max": copies_max}
    with database.transaction() as connection:
        return connection.execute(statement.encode(), given).fetchall()


def first_copy_at(database: Database) -> datetime | None:
    """When the first copy that is still here came; None if there is none."""
    with database.transaction() as connection:
        row = connection.execute("SELECT created_at FROM copy ORDER BY copy_key LIMIT 1").fetchone()
    return row["created_at"] if row else None
