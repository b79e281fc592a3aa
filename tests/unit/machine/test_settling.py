"""What is done before the database starts: trial, roll-back and refusal, with a folder for the cluster."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.errors import DataTooNew, UsageError, VolumeFull
from pacs.machine import settling
from pacs.machine.settling import Boot, Settling
from pacs.machine.slots import GrubEnvironment, encoded
from pacs.machine.trial import give_up, pass_it
from pacs.model.lineage import State
from pacs.model.upgrade import System
from pacs.storage.lineage import LineageFiles
from pacs.storage.upgrade_record import CALLED_OFF, PASSED, ROLLED_BACK, Record, UpgradeFiles

OLD, NEW, SAME = System("1.0.0", 3, 17), System("2.0.0", 4, 17), System("1.0.1", 3, 17)
ON_TRIAL = Boot("b", "a", "", "one")
BACK = Boot("a", "a", "")


class Node:
    """A data directory with a cluster of two files, last used by OLD."""

    def __init__(self, folder: Path) -> None:
        self.data, self.cluster = folder / "data", folder / "data" / "postgresql" / "17" / "main"
        (self.cluster / "base").mkdir(parents=True)
        self.files = UpgradeFiles(self.data)
        self.environment = GrubEnvironment(folder / "grubenv")
        self.environment.file.write_bytes(encoded({"slot": "a", "try": ""}))
        LineageFiles(self.data).put_state(State("lineage", 1, 5))
        self.write("old")
        assert not self.settle(OLD, Boot("a", "a"))

    def write(self, words: str) -> None:
        (self.cluster / "base" / "1").write_text(words)

    def read(self) -> str:
        return (self.cluster / "base" / "1").read_text()

    def settle(self, here: System, boot: Boot) -> bool:
        return Settling(self.data, self.cluster, here, boot).settle()

    def arm(self, target: System = NEW) -> None:
        self.files.put_record(Record("one", "a", "b", OLD, target, "2026-01-01T00:00:00+00:00"))

    def record(self) -> Record:
        found = self.files.record()
        assert found is not None
        return found

    def reverted(self) -> bool:
        return LineageFiles(self.data).reverted() is not None


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_an_upgrade_that_passes(node: Node) -> None:
    node.arm()
    assert node.settle(NEW, ON_TRIAL)
    assert (node.files.cluster / "base" / "1").read_text() == "old"
    node.write("new")
    pass_it(node.files, node.environment, "b", NEW)
    assert (node.environment.default, node.record().outcome, node.files.accepted()) == ("b", PASSED, NEW)
    assert not node.settle(NEW, Boot("b", "b", "", "one"))
    assert node.read() == "new"
    assert not node.reverted()


@pytest.mark.parametrize("says", [True, False])
def test_one_that_fails_or_is_not_heard_of_is_put_back(node: Node, says: bool) -> None:
    node.arm()
    assert node.settle(NEW, ON_TRIAL)
    node.write("new")
    if says:
        give_up(node.files, "the selftest failed at C-STORE")
    assert not node.settle(OLD, BACK)
    assert node.read() == "old"
    assert (node.files.failed / "base" / "1").read_text() == "new"
    assert node.record().outcome == ROLLED_BACK
    assert ("C-STORE" in node.record().why) == says
    assert node.reverted(), "what was stored since would not be found again"
    assert LineageFiles(node.data).reverted().is_state  # type: ignore[union-attr]
    assert not node.settle(OLD, BACK)
    assert node.files.accepted() == OLD


def test_without_another_schema_the_database_stays_as_it_is(node: Node) -> None:
    node.arm(SAME)
    assert node.settle(SAME, ON_TRIAL)
    assert not node.files.cluster.exists()
    node.write("since")
    assert not node.settle(OLD, BACK)
    assert (node.read(), node.record().outcome, node.reverted()) == ("since", ROLLED_BACK, False)


def test_a_kernel_that_panics_has_touched_nothing(node: Node) -> None:
    node.arm()
    assert not node.settle(OLD, BACK)
    assert (node.record().outcome, node.reverted()) == (ROLLED_BACK, False)
    assert "did not come as far" in node.record().why


def test_what_the_boot_loader_did_not_try_is_called_off(node: Node) -> None:
    node.arm()
    assert not node.settle(OLD, Boot("a", "a", "b"))
    assert node.record().outcome == CALLED_OFF


def test_power_that_goes_on_trial_is_a_trial_that_failed_or_goes_on(node: Node) -> None:
    """Which one, the boot loader decides: both end well, and the copy is made once."""
    node.arm()
    assert node.settle(NEW, ON_TRIAL)
    node.write("new")
    assert node.settle(NEW, ON_TRIAL)
    assert (node.files.cluster / "base" / "1").read_text() == "old"
    assert not node.settle(OLD, BACK)
    assert node.read() == "old"


def test_power_that_goes_after_it_passed_changes_nothing(node: Node) -> None:
    node.arm()
    assert node.settle(NEW, ON_TRIAL)
    node.write("new")
    node.environment.write(slot="b")  # and nothing was written down of it
    assert not node.settle(NEW, Boot("b", "b", "", "one"))
    assert (node.record().outcome, node.files.accepted(), node.read()) == (PASSED, NEW, "new")


def test_a_copy_that_was_cut_short_does_not_count(node: Node) -> None:
    node.arm()
    node.files.unfinished.mkdir(parents=True)
    (node.files.unfinished / "half").write_text("")
    assert node.settle(NEW, ON_TRIAL)
    assert not node.files.unfinished.exists()
    assert not (node.files.cluster / "half").exists()
    shutil.rmtree(node.files.cluster)
    node.files.cluster.mkdir()  # renamed, and the power went before it was noted that it is whole
    node.files.put_kept(None)
    assert node.settle(NEW, ON_TRIAL)
    assert (node.files.cluster / "base" / "1").read_text() == "old"


@pytest.mark.parametrize("moved", [1, 2])
def test_a_roll_back_that_was_cut_short_goes_on(node: Node, moved: int) -> None:
    node.arm()
    assert node.settle(NEW, ON_TRIAL)
    node.write("new")
    give_up(node.files, "no")
    node.cluster.rename(node.files.failed)
    if moved == 2:
        node.files.cluster.rename(node.cluster)
    assert not node.settle(OLD, BACK)
    assert (node.read(), node.record().outcome) == ("old", ROLLED_BACK)
    assert (node.files.failed / "base" / "1").read_text() == "new"


def test_data_of_a_newer_version_are_not_touched(node: Node) -> None:
    node.arm()
    assert node.settle(NEW, ON_TRIAL)
    pass_it(node.files, node.environment, "", NEW)
    before = sorted(path.read_bytes() for path in node.data.rglob("*") if path.is_file())
    with pytest.raises(DataTooNew, match=r"Use the image of version 2\.0\.0"):
        node.settle(OLD, Boot("a", "a"))
    assert sorted(path.read_bytes() for path in node.data.rglob("*") if path.is_file()) == before


def test_another_system_disk_is_on_trial_too_and_is_refused_after_it_failed(node: Node) -> None:
    disk = Boot("a", "a")
    assert node.settle(NEW, disk)
    assert node.record().is_disk
    node.write("new")
    assert node.settle(NEW, disk), "the power went: the trial goes on"
    give_up(node.files, "the selftest failed")
    with pytest.raises(UsageError, match=r"Attach the system disk of version 1\.0\.0"):
        node.settle(NEW, disk)
    assert node.read() == "old"
    assert node.reverted()
    assert not node.settle(OLD, disk)
    assert node.read() == "old"


def test_the_old_system_disk_attached_in_the_middle_puts_the_data_back(node: Node) -> None:
    assert node.settle(NEW, Boot("a", "a"))
    node.write("new")
    assert not node.settle(OLD, Boot("a", "a"))
    assert (node.read(), node.record().outcome) == ("old", ROLLED_BACK)


def test_another_system_disk_with_the_same_schema_just_goes_on(node: Node) -> None:
    assert not node.settle(SAME, Boot("a", "a"))
    assert (node.files.accepted(), node.files.record()) == (SAME, None)


def test_without_room_for_the_copy_nothing_is_touched(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling.shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    node.arm()
    with pytest.raises(VolumeFull, match="Enlarge that disk"):
        node.settle(NEW, ON_TRIAL)
    assert not node.settle(OLD, BACK)
    assert (node.read(), node.reverted()) == ("old", False)


def test_the_copy_is_kept_for_a_week(node: Node) -> None:
    node.arm()
    assert node.settle(NEW, ON_TRIAL)
    now = clock.now()
    assert not settling.forget_old(node.files, now + timedelta(days=30)), "its upgrade has not ended"
    pass_it(node.files, node.environment, "b", NEW)
    assert not settling.forget_old(node.files, now + timedelta(days=6))
    assert settling.forget_old(node.files, now + timedelta(days=8))
    assert not node.files.cluster.exists()
    assert node.files.kept() is None


def test_a_record_of_a_later_version_is_understood(node: Node) -> None:
    node.arm()
    path = node.files.folder / "record.json"
    path.write_text(path.read_text().replace("{", '{"mood": "good", ', 1))
    assert node.record() == replace(node.record(), record_id="one")
