"""What arrived each day is counted once for each object, in whatever order and batches; and what it costs."""

from __future__ import annotations

from datetime import date, timedelta

from pacs import clock
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.index import growth
from tests.synthetic import ct_study


def _store(instance: Instance, seed: int, count: int) -> int:
    store, size_bytes = instance.store(), 0
    for made in ct_study(seed, count):
        arrival = Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
        assert store.store(arrival) == "stored"
        size_bytes += len(made.part10)
    return size_bytes


def _move(instance: Instance, days: int, above_key: int) -> None:
    with instance.database.transaction() as connection:
        connection.execute(
            "UPDATE object SET arrived_at = arrived_at - make_interval(days => %s) WHERE object_key > %s",
            (days, above_key),
        )


def _newest(instance: Instance) -> int:
    with instance.database.transaction() as connection:
        row = connection.execute("SELECT max(object_key) AS key FROM object").fetchone()
    assert row is not None
    return int(row["key"])


def test_each_object_is_counted_once_on_its_own_day(instance: Instance) -> None:
    database, today = instance.database, clock.now().date()
    assert growth.count_arrivals(database) == 0
    assert growth.arrivals(database, date(2000, 1, 1)) == []
    _store(instance, 1, 5)
    newest = _newest(instance)
    _move(instance, 3, 0)
    _store(instance, 2, 4)
    _move(instance, 1, newest)
    assert growth.count_arrivals(database, batch=2) == 9
    assert growth.count_arrivals(database, batch=2) == 0
    found = {row["day"]: row["objects"] for row in growth.arrivals(database, date(2000, 1, 1))}
    assert found == {today - timedelta(days=3): 5, today - timedelta(days=1): 4}
    newest = _newest(instance)
    _store(instance, 3, 1)
    assert growth.count_arrivals(database) == 0, "it has just come: another may yet be on its way with a smaller key"
    _move(instance, 3, newest)
    assert growth.count_arrivals(database) == 1
    rows = growth.arrivals(database, today - timedelta(days=2))
    assert [row["objects"] for row in rows] == [4]
    assert growth.objects_counted(database) == 10
    with database.transaction() as connection:
        row = connection.execute("SELECT sum(size_bytes)::bigint AS size_bytes FROM object").fetchone()
    assert row is not None
    assert sum(each["size_bytes"] for each in growth.arrivals(database, date(2000, 1, 1))) == row["size_bytes"]


def test_sizes_of_the_database(instance: Instance) -> None:
    assert growth.database_size_bytes(instance.database) > 1 << 20
    assert growth.wal_size_bytes_max(instance.database) == 1 << 30
