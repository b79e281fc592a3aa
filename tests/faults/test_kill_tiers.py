"""kill -9 of the worker while it moves, recalls and drains, and errors of its disks: each object keeps a verified copy,
no copy has two rows, every file is known or found, and all of it goes on.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs.archive import tiering
from pacs.archive.reconcile import reconcile
from pacs.cli.instance import Instance, open_instance
from pacs.index import recalls
from pacs.model.tier_rules import Rule
from tests.faults.forked import Forked
from tests.faults.process import kill, wait_for
from tests.faults.trace import Tracer
from tests.synthetic import ct_study
from tests.tiers import add_volume, assert_each_object_is_safe, store

#: How often the long form kills.
KILLS = int(os.environ.get("PACS_KILLS", "200"))
_SETTINGS = """
tier1_high_percent = 0.0001
tier1_low_percent = 0
tier_interval_s = 0.02
move_grace_s = 0
recall_keep_s = 0
"""
OBJECTS = 4


@pytest.fixture
def churning(new_instance: Callable[[], Path]) -> Iterator[Instance]:
    """An instance in which all that arrives goes down to tier 3 at once, and two volumes of tier 2 to drain."""
    data = new_instance()
    with (data / "config" / "pacs.toml").open("a") as file:
        file.write(_SETTINGS)
    with open_instance(data) as instance:
        add_volume(instance, 2, "large2")
        add_volume(instance, 3, "far1")
        far = Rule("far", 2, 3, modalities=("CT",))
        tiering.add_rule(instance.database, instance.journal, instance.settings, far)
        yield instance


class _Churn:
    """What goes on beside the worker: studies arrive and are asked for, volumes are to be emptied."""

    def __init__(self, instance: Instance, seed: int) -> None:
        self.instance, self.random, self.studies = instance, random.Random(seed), list[str]()
        self.seed = seed * 1000

    def go_on(self, number: int) -> None:
        """A little of it."""
        if len(self.studies) < 40:
            self.seed += 1
            objects = ct_study(self.seed, OBJECTS, rows=8, columns=8)
            store(self.instance, objects)
            self.studies.append(objects[0].study_instance_uid)
        for uid in self.random.sample(self.studies, min(3, len(self.studies))):
            tiering.recall(self.instance.database, uid)
        if number % 4 == 0:
            self.drain(self.random.choice(["tier2", "large2", ""]))

    def drain(self, name: str) -> None:
        """Have one volume of tier 2 emptied, the other one be in service."""
        with self.instance.database.transaction() as connection:
            connection.execute(
                "UPDATE volume SET state = CASE WHEN name = %s THEN 'draining' ELSE 'active' END WHERE tier = 2",
                (name,),
            )


def _kill_rounds(instance: Instance, kills: int, seed: int, module: str = "tiering", most_s: float = 0.4) -> None:
    """Kill what `module` does after 0 to most_s seconds, again and again."""
    churn, moments = _Churn(instance, seed), random.Random(seed)
    for number in range(6):
        churn.go_on(number)
    with Forked(module, instance.settings.data) as keeper:
        for number in range(kills):
            pid = keeper.begin()
            churn.go_on(number)
            time.sleep(moments.uniform(0, most_s))
            kill(pid)
            _assert_rows_are_sound(instance)
        churn.drain("large2")
        _assert_it_goes_on_and_ends(instance, keeper)


def _assert_rows_are_sound(instance: Instance) -> None:
    """At any moment: each object has a good copy, and a volume no second one of it."""
    with instance.database.transaction() as connection:
        lonely = connection.execute(
            "SELECT object_key FROM object o WHERE NOT EXISTS ("
            " SELECT FROM copy c WHERE c.object_key = o.object_key AND c.state = 'good')"
        ).fetchall()
        twice = connection.execute(
            "SELECT object_key, volume_id FROM copy GROUP BY 1, 2 HAVING count(*) > 1"
        ).fetchall()
    assert (lonely, twice) == ([], [])


def _assert_it_goes_on_and_ends(instance: Instance, keeper: Forked) -> None:
    """A worker that is let be brings what was asked for, empties the volume and moves all down; nothing is lost."""
    pid = keeper.begin()
    try:
        wait_for(lambda: _is_at_rest(instance), f"it does not go on: {keeper.log.read_text()[-3000:]}", timeout_s=300)
    finally:
        kill(pid, signal.SIGKILL)
    instance.volumes.refresh()
    assert_each_object_is_safe(instance)
    orphans = len(_files_without_row(instance))
    findings = reconcile(instance.database, instance.volumes.all(), orphan_age_s=0)
    done = [row for row in recalls.list_recalls(instance.database, 10_000) if row["state"] == "done"]
    print(f"{len(done)} recalls done; {orphans} files without a row found: {findings}")
    assert findings.missing == 0
    assert _files_without_row(instance) == []
    assert_each_object_is_safe(instance)


def _is_at_rest(instance: Instance) -> bool:
    """All recalls are over, the drained volume is empty, and every object is on tier 3 only."""
    if any(row["state"] == "open" for row in recalls.list_recalls(instance.database, 1000)):
        return False
    with instance.database.transaction() as connection:
        elsewhere = connection.execute(
            "SELECT FROM copy c JOIN volume v USING (volume_id) WHERE v.tier < 3 OR c.state <> 'good' LIMIT 1"
        ).fetchone()
    return elsewhere is None


def _files_without_row(instance: Instance) -> list[str]:
    found = []
    for volume in instance.volumes.all():
        with instance.database.transaction() as connection:
            rows = connection.execute("SELECT path FROM copy WHERE volume_id = %s", (volume.volume_id,)).fetchall()
        known = {row["path"] for row in rows}
        found += [status.path for status in volume.walk() if status.path not in known]
    return found


def test_kill_9_while_moving_recalling_and_draining(churning: Instance) -> None:
    _kill_rounds(churning, 8, seed=1)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_kill_9_again_and_again(churning: Instance) -> None:
    _kill_rounds(churning, KILLS, seed=2)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_kill_9_while_several_processes_move(churning: Instance) -> None:
    """They end with the worker that started them, and the next one finds nobody at work."""
    _kill_rounds(churning, max(1, KILLS // 5), seed=6, module="tiering_processes", most_s=4)


def test_two_workers_at_once_each_of_them_killed(churning: Instance) -> None:
    churn = _Churn(churning, 3)
    for number in range(6):
        churn.go_on(number)
    with Forked("tiering", churning.settings.data) as one, Forked("tiering", churning.settings.data) as other:
        for number in range(3):
            pids = [one.begin(), other.begin()]
            churn.go_on(number)
            time.sleep(0.2)
            for pid in pids:
                kill(pid)
            _assert_rows_are_sound(churning)
        churn.drain("large2")
        survivor = other.begin()
        try:
            _assert_it_goes_on_and_ends(churning, one)
        finally:
            kill(survivor)


@pytest.mark.parametrize(
    ("call", "error"),
    [("write", "ENOSPC"), ("write", "EIO"), ("syncfs", "EIO"), ("rename", "EIO"), ("fsync", "EIO"), ("readv", "EIO")],
)
def test_errors_of_the_disks_lose_nothing_and_it_goes_on_when_they_are_over(
    churning: Instance, tmp_path: Path, call: str, error: str
) -> None:
    """Every third call fails, for a while."""
    churn = _Churn(churning, 4)
    with Forked("tiering", churning.settings.data) as keeper:
        pid = keeper.begin()
        with Tracer(pid, tmp_path / "trace", f"trace={call}", f"inject={call}:error={error}:when=2+3") as tracer:
            for number in range(4):
                churn.go_on(number)
            wait_for(lambda: "INJECTED" in tracer.output.read_text(), "no call failed")
            _assert_rows_are_sound(churning)
        kill(pid)
        churn.drain("large2")
        _assert_it_goes_on_and_ends(churning, keeper)


def test_the_count_would_see_a_loss(churning: Instance) -> None:
    """The test of the test: one file taken away, and a row."""
    churn = _Churn(churning, 5)
    churn.go_on(1)
    with churning.database.transaction() as connection:
        row = connection.execute("SELECT copy_key, path FROM copy LIMIT 1").fetchone()
    assert row is not None
    (fast,) = churning.volumes.tier(1)
    (Path(fast.location) / row["path"]).unlink()
    with pytest.raises(FileNotFoundError):
        assert_each_object_is_safe(churning)
    with churning.database.transaction() as connection:
        connection.execute("DELETE FROM copy WHERE copy_key = %s", (row["copy_key"],))
    with pytest.raises(AssertionError):
        _assert_rows_are_sound(churning)
