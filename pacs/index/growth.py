"""Queries of how the archive grows: what arrived on each day, from whom and how large; the database's size."""

from __future__ import annotations

from datetime import date

from pacs.index.database import Database, Row
from pacs.model.rhythm import SLOT_S

#: Objects counted in one transaction.
BATCH = 100_000
#: Younger objects are counted later: an object of a smaller key may still be on its way to its commit.
SETTLED_S = 600

#: Bounds of the classes of sizes that objects are counted in [bytes]; beyond the last there is one more.
SIZE_BOUNDS = tuple(16 * 1024 * 4**step for step in range(10))

COUNT = f"""
    WITH counted AS (SELECT through_object_key FROM arrival_counted FOR UPDATE),
         batch AS (
             SELECT o.object_key, o.tenant_id, (o.arrived_at AT TIME ZONE 'UTC')::date AS day, o.size_bytes,
                    a.calling_ae, floor(extract(epoch FROM o.arrived_at) / {SLOT_S})::integer AS slot,
                    width_bucket(o.size_bytes - 1, %(bounds)s::bigint[]) AS size_class
               FROM object o LEFT JOIN association a USING (association_key)
              WHERE o.object_key > (SELECT through_object_key FROM counted) AND o.object_key <= %(up_to)s
              ORDER BY o.object_key LIMIT %(batch)s),
         days AS (
             INSERT INTO arrival AS a (tenant_id, day, objects, size_bytes)
             SELECT tenant_id, day, count(*), sum(size_bytes) FROM batch GROUP BY tenant_id, day
             ON CONFLICT (tenant_id, day)
             DO UPDATE SET objects = a.objects + excluded.objects, size_bytes = a.size_bytes + excluded.size_bytes),
         senders AS (
             INSERT INTO sending AS s (tenant_id, calling_ae, slot, objects)
             SELECT tenant_id, calling_ae, slot, count(*) FROM batch WHERE calling_ae IS NOT NULL
              GROUP BY tenant_id, calling_ae, slot
             ON CONFLICT (tenant_id, calling_ae, slot) DO UPDATE SET objects = s.objects + excluded.objects),
         sizes AS (
             INSERT INTO arrival_size AS z (tenant_id, size_class, objects, size_bytes)
             SELECT tenant_id, size_class, count(*), sum(size_bytes) FROM batch GROUP BY tenant_id, size_class
             ON CONFLICT (tenant_id, size_class)
             DO UPDATE SET objects = z.objects + excluded.objects, size_bytes = z.size_bytes + excluded.size_bytes)
    UPDATE arrival_counted c SET through_object_key = b.last
      FROM (SELECT max(object_key) AS last, count(*) AS objects FROM batch) b WHERE b.last IS NOT NULL
    RETURNING b.objects
"""


def count_arrivals(database: Database, settled_s: float = SETTLED_S, batch: int = BATCH) -> int:
    """Count what arrived since the last time, each object once; return how many objects that were.

    Costs as much as there are new objects: they are read along the primary key, a batch a transaction.
    """
    with database.transaction() as connection:
        newest = connection.execute(
            "SELECT object_key FROM object WHERE arrived_at < now() - make_interval(secs => %s)"
            " ORDER BY object_key DESC LIMIT 1",
            (settled_s,),
        ).fetchone()
    done = 0
    while newest is not None:
        with database.transaction() as connection:
            words = {"up_to": newest["object_key"], "batch": batch, "bounds": list(SIZE_BOUNDS)}
            row = connection.execute(COUNT.encode(), words).fetchone()
        if row is None:
            break
        done += row["objects"]
    return done


def arrivals(database: Database, since: date) -> list[Row]:
    """The days (UTC) on which something arrived: day, objects, size_bytes; the first first."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT day, sum(objects)::bigint AS objects, sum(size_bytes)::bigint AS size_bytes"
            " FROM arrival WHERE day >= %s GROUP BY day ORDER BY day",
            (since,),
        ).fetchall()


def sending(database: Database, since_slot: int) -> dict[str, list[int]]:
    """Calling AE title → the slots (model/rhythm.py) since then in which it sent an object."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT calling_ae, array_agg(slot ORDER BY slot) AS slots FROM sending WHERE slot >= %s"
            " GROUP BY calling_ae",
            (since_slot,),
        ).fetchall()
    return {row["calling_ae"]: row["slots"] for row in rows}


def arrival_sizes(database: Database) -> list[Row]:
    """Of each class of SIZE_BOUNDS that there is something of: size_class (an index), objects, size_bytes."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT size_class, sum(objects)::bigint AS objects, sum(size_bytes)::float8 AS size_bytes"
            " FROM arrival_size GROUP BY size_class ORDER BY size_class"
        ).fetchall()


def objects_counted(database: Database) -> int:
    """How many objects there are, as far as they were counted."""
    with database.transaction() as connection:
        row = connection.execute("SELECT coalesce(sum(objects), 0)::bigint AS objects FROM arrival").fetchone()
    assert row is not None
    return int(row["objects"])


def database_size_bytes(database: Database) -> int:
    """How much disk the database takes, without its log."""
    with database.transaction() as connection:
        row = connection.execute("SELECT pg_database_size(current_database()) AS size_bytes").fetchone()
    assert row is not None
    return int(row["size_bytes"])


def wal_size_bytes_max(database: Database) -> int:
    """The size that PostgreSQL keeps its log to between two checkpoints (max_wal_size)."""
    with database.transaction() as connection:
        row = connection.execute("SELECT pg_size_bytes(current_setting('max_wal_size')) AS size_bytes").fetchone()
    assert row is not None
    return int(row["size_bytes"])
