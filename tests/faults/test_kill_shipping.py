"""kill -9 while objects are shipped: none is lost, none has two rows, what was written without a row is found, and all
of it goes on."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pacs.archive.reconcile import reconcile
from pacs.archive.scrub import Scrub
from pacs.backup.shipping import lag_of
from pacs.cli.instance import open_instance
from tests.faults.forked import Forked
from tests.faults.process import kill
from tests.planting import copies
from tests.repository import add_folder, sealed, ship
from tests.synthetic import ct_study
from tests.tiers import good_by_tier, store

#: How often the long form kills.
KILLS = int(os.environ.get("PACS_KILLS", "200"))
OBJECTS = 60


@pytest.mark.parametrize("kills", [8, pytest.param(KILLS, marks=pytest.mark.long)])
def test_shipping_that_is_killed_goes_on(new_instance: Callable[[], Path], tmp_path: Path, kills: int) -> None:
    data, chance = new_instance(), random.Random(kills)
    with open_instance(data) as instance:
        place = add_folder(instance, tmp_path / "repository")
        volume_id = place.repository.volume_id
        with Forked("shipping", data) as forked:
            for number in range(kills):
                store(instance, ct_study(number + 1, OBJECTS, rows=8, columns=8))
                process = forked.begin()
                time.sleep(chance.uniform(0, 0.3))
                kill(process)
        while lag_of(instance.database, volume_id).objects:
            assert ship(instance, place.repository).error == ""
        shipped = [row for row in copies(instance) if row["volume_id"] == volume_id]
        assert len({row["object_key"] for row in shipped}) == len(shipped) == kills * OBJECTS
        assert good_by_tier(instance) == {1: kills * OBJECTS, 4: kills * OBJECTS}
        found = reconcile(instance.database, [sealed(instance, place.repository)], 0)
        assert (found.missing, found.indexed, found.adopted, found.quarantined, found.unreadable) == (0, 0, 0, 0, 0)
        assert Scrub(instance.database, instance.volumes, timedelta(days=90)).run(everything=True).is_clean
        assert place.site.paths("incoming") == []
