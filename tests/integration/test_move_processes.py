"""Many small objects are moved by several processes: the same outcome, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from pacs.archive import move as moving
from pacs.archive import move_processes
from pacs.archive.move import Mover
from pacs.archive.move_group import Pass
from pacs.cli.instance import Instance
from pacs.errors import PacsError
from pacs.model.tier_rules import Look, Rule
from tests.synthetic import ct_study
from tests.tiers import DOWN as DUE
from tests.tiers import assert_each_object_is_safe, files, follow, good_by_tier, mover, store

DOWN = Rule("down", 1, 2)


@pytest.fixture(autouse=True)
def always_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "PROCESSES_FROM_OBJECTS", 0)


def test_what_processes_move_is_moved_and_one_bad_file_holds_up_no_other(instance: Instance) -> None:
    for seed in range(5):
        store(instance, ct_study(seed, 3))
    bad = files(instance.volumes, 1)[0]
    bad.write_bytes(bytes(1000))
    with mover(instance) as made:
        done = Pass()
        made.follow_rule(DOWN, DUE, done)
        assert (done.objects, done.failed, done.errors) == (14, 1, [])
        assert len(made._groups.resting()) == 1, "the study with the bad file is left alone for a while"
    assert good_by_tier(instance) == {2: 14}
    assert len(files(instance.volumes, 2)) == 14
    assert multiprocessing.active_children() == []


def test_no_more_is_moved_than_was_asked_for(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.archive.batches._TOGETHER_MAX", 1)
    for seed in range(8):
        store(instance, ct_study(seed, 2))
    each = sum(path.stat().st_size for path in files(instance.volumes, 1)) // 8
    with mover(instance) as made:
        done = Pass()
        made.follow_rule(DOWN, Look(True, 3 * each, "in a test"), done)
    assert done.studies == 3, "counted while groups are under way"
    assert good_by_tier(instance) == {1: 10, 2: 6}


def test_a_tier_without_room_ends_it_and_tells_why(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    store(instance, ct_study(1, 2))
    tier2 = Path(instance.volumes.tier(2)[0].location)
    with mover(instance) as made:
        (tier2 / "volume.json").rename(tier2 / "away")
        with pytest.raises(PacsError, match=str(tier2)):
            made.follow_rule(DOWN, DUE, Pass())
        (tier2 / "away").rename(tier2 / "volume.json")
    assert good_by_tier(instance) == {1: 2}


def test_a_process_that_is_killed_loses_nothing_and_the_next_pass_does_the_rest(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs.archive.batches._TOGETHER_MAX", 1)
    for seed in range(40):
        store(instance, ct_study(seed, 2))
    collect, killed = move_processes.MovingProcesses._collect, []

    def kill_then_collect(self: move_processes.MovingProcesses) -> None:
        if not killed:
            killed.append(next(child.pid for child in multiprocessing.active_children() if child.pid))
            os.kill(killed[0], signal.SIGKILL)
        collect(self)

    monkeypatch.setattr(move_processes.MovingProcesses, "_collect", kill_then_collect)
    with pytest.raises(PacsError, match="was ended"):
        follow(instance, DOWN)
    assert_each_object_is_safe(instance)
    assert killed and multiprocessing.active_children() == []
    follow(instance, DOWN)
    assert good_by_tier(instance) == {2: 80}


def test_a_stop_ends_them_between_two_groups(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.archive.batches._TOGETHER_MAX", 1)
    for seed in range(30):
        store(instance, ct_study(seed, 2))
    stop = threading.Event()
    made = Mover(instance.database, instance.volumes, 0, stop=stop)
    stop.set()
    done = Pass()
    made.follow_rule(DOWN, DUE, done)
    made.close()
    assert done.objects < 60
    assert multiprocessing.active_children() == []
    assert_each_object_is_safe(instance)
