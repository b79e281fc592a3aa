"""kill -9 at any moment of scrubbing, repairing and comparing: no object is ever without a verified copy, no copy has
two rows, and when it is let work to its end all damage is repaired."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pacs.archive.reconcile import reconcile
from pacs.archive.repair import Repair
from pacs.archive.scrub import Scrub
from pacs.cli.instance import Instance, open_instance
from pacs.index.damage import damage_counts
from tests.faults.forked import Forked
from tests.planting import DAMAGES, FILE_SYSTEM_DAMAGES, LocalSite, copies, double, store
from tests.synthetic import ct_study

#: How often the long form kills.
KILLS = int(os.environ.get("PACS_KILLS", "200"))
OBJECTS = 24
_DAMAGES = DAMAGES | FILE_SYSTEM_DAMAGES


def _sites(instance: Instance) -> dict[str, LocalSite]:
    return {volume.volume_id: LocalSite(volume, Path(volume.location)) for volume in instance.volumes.all()}


def _is_whole(instance: Instance, row: dict[str, object]) -> bool:
    volume = instance.volumes.get(str(row["volume_id"]))
    try:
        return volume.digest_on_disk(str(row["path"])) == row["sha256"]
    except Exception:
        return False


def _whole(instance: Instance) -> dict[int, list[dict[str, object]]]:
    """By object, its copies that are in service and whole."""
    found: dict[int, list[dict[str, object]]] = {}
    for row in copies(instance):
        found.setdefault(row["object_key"], [])
        if row["state"] == "good" and _is_whole(instance, row):
            found[row["object_key"]].append(row)
    return found


def _plant(instance: Instance, dice: random.Random, count: int) -> list[str]:
    """Damage one copy each of some objects that have two good ones; return what was done."""
    sites = _sites(instance)
    two = [rows for rows in _whole(instance).values() if len(rows) == 2]
    done = []
    for rows in dice.sample(two[:-1], min(count, len(two) // 2)):
        row, name = dice.choice(rows), dice.choice(list(_DAMAGES))
        other = next(each for each in two[-1] if each["volume_id"] == row["volume_id"])
        _DAMAGES[name](sites[str(row["volume_id"])], str(row["path"]), str(other["path"]))
        done.append(name)
    return done


def _assert_kept(instance: Instance) -> None:
    rows = copies(instance)
    assert len(rows) == 2 * OBJECTS
    assert max(Counter((row["object_key"], row["volume_id"]) for row in rows).values()) == 1
    assert all(_whole(instance).values()), "an object has no verified copy"


def _kill_again_and_again(data: Path, kills: int, seed: int) -> dict[str, int]:
    dice = random.Random(seed)
    with open_instance(data) as instance, Forked("keeping", data) as keeper:
        store(instance, ct_study(1, OBJECTS))
        double(instance, instance.volumes.tier(2)[0])
        planted = 0
        for _kill in range(kills):
            planted += len(_plant(instance, dice, 4))
            pid = keeper.begin()
            time.sleep(dice.uniform(0, 0.35))
            os.kill(pid, signal.SIGKILL)
            _assert_kept(instance)
        Scrub(instance.database, instance.volumes, timedelta(days=90)).run(everything=True)
        repairs = Repair(instance.database, instance.volumes.by_id)
        assert repairs.run(at_once=True).waiting == 0
        assert reconcile(instance.database, instance.volumes.all(), orphan_age_s=0).is_clean
        _assert_kept(instance)
        assert all(len(rows) == 2 for rows in _whole(instance).values()), "all is repaired"
        named = {(row["volume_id"], row["path"]) for row in copies(instance)}
        for volume_id, site in _sites(instance).items():
            assert {(volume_id, path) for path in site.paths("objects")} <= named, "a file that nobody knows of"
            assert site.paths("incoming") == []
        return {"planted": planted, **damage_counts(instance.database)}


def test_kill_9_of_scrub_and_repair(new_instance: Callable[[], Path]) -> None:
    found = _kill_again_and_again(new_instance(), kills=8, seed=1)
    assert found["planted"] > 8 and found["repaired"] > 0


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_kill_9_of_scrub_and_repair_again_and_again(new_instance: Callable[[], Path]) -> None:
    found = _kill_again_and_again(new_instance(), KILLS, seed=2)
    print(f"killed {KILLS} times: {found}")
    assert found["repaired"] > KILLS / 4
