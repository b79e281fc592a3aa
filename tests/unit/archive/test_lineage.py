"""The lineage of an instance: marks that go on, an epoch that begins, another node's that is met."""

from __future__ import annotations

from pathlib import Path

from pacs.archive.lineage import Lineage, begin_epoch, continue_lineage
from pacs.cli.instance import Instance
from pacs.model.lineage import Mark
from pacs.storage.files import LocalVolume
from pacs.storage.lineage import LineageFiles, read_mark, write_mark
from pacs.storage.volume import create_identity
from tests.repository import add_folder


def lineage_of(instance: Instance) -> Lineage:
    """As the worker has it after a start."""
    return Lineage(instance.settings.data, instance.database, instance.volumes)


def marks_of(instance: Instance) -> set[tuple[str, int, int]]:
    marks = [read_mark(volume) for volume in instance.volumes.all()]
    return {(mark.lineage_id, mark.epoch, mark.generation) for mark in marks if mark}


def test_marks_go_on_and_a_start_more_is_nothing_new(instance: Instance) -> None:
    files = LineageFiles(instance.settings.data)
    for start in range(3):
        lineage = lineage_of(instance)
        for turn in range(3):
            lineage.beat()
            state = files.state()
            assert state is not None and state.generation == 3 * start + turn + 1
            assert marks_of(instance) == {(state.lineage_id, 1, state.generation)}
    assert files.reverted() is None and files.fenced() is None
    assert all(lineage.may_ship(volume.volume_id) for volume in instance.volumes.all())
    assert not lineage.may_ship("one that was never looked at")


def test_a_mark_says_on_which_timeline_the_log_was(instance: Instance) -> None:
    """So that a state that was put back twice to the same moment begins a timeline that was never used."""
    lineage = lineage_of(instance)
    lineage.beat()
    lineage.beat()
    assert {mark.timeline for volume in instance.volumes.all() if (mark := read_mark(volume))} == {1}


def test_an_epoch_begins_and_nothing_seems_to_have_gone_back(instance: Instance) -> None:
    lineage_of(instance).beat()
    mark = begin_epoch(instance.settings.data)
    assert mark.epoch == 2
    lineage = lineage_of(instance)
    lineage.beat()
    lineage.beat()
    assert {epoch for _lineage, epoch, _generation in marks_of(instance)} == {2}
    assert lineage.files.reverted() is None


def test_a_restored_node_goes_on_with_the_archives_lineage(instance: Instance, tmp_path: Path) -> None:
    lineage_of(instance).beat()  # its own, of before the restore
    (tmp_path / "repository").mkdir()
    create_identity(tmp_path / "repository", ("tier4",))
    repository = LocalVolume(tmp_path / "repository", "tier4")
    write_mark(repository, Mark("the archive's", 3, 77, "the old node"))
    assert continue_lineage(instance.settings.data, repository).epoch == 4
    met = read_mark(repository)
    assert met is not None and (met.lineage_id, met.epoch) == ("the archive's", 4)
    lineage = lineage_of(instance)
    lineage.beat()
    assert {(found[0], found[1]) for found in marks_of(instance)} == {("the archive's", 4)}
    assert lineage.files.reverted() is None and lineage.files.fenced() is None
    state = lineage.files.state()
    assert state is not None and state.knows(met)


def test_a_higher_epoch_fences_and_its_mark_is_left(instance: Instance) -> None:
    lineage = lineage_of(instance)
    lineage.beat()
    volume = instance.volumes.tier(2)[0]
    mine = read_mark(volume)
    assert mine is not None
    theirs = Mark(mine.lineage_id, mine.epoch + 1, 5, "another node")
    write_mark(volume, theirs)
    lineage_of(instance).look_for_fence()  # as a receiver does before it takes anybody
    assert lineage.files.fenced() is not None and lineage.is_held
    lineage.beat()
    assert read_mark(volume) == theirs
    assert lineage.files.highest_epoch() == mine.epoch + 1
    assert not lineage.may_ship(volume.volume_id)


def test_a_repository_that_was_away_is_looked_at_as_soon_as_it_is_back(instance: Instance, tmp_path: Path) -> None:
    repository = add_folder(instance, tmp_path / "repository").repository
    lineage = lineage_of(instance)
    for is_there in (True, False, True):
        if not is_there:
            (tmp_path / "repository").rename(tmp_path / "away")
        elif (tmp_path / "away").exists():
            (tmp_path / "away").rename(tmp_path / "repository")
        instance.volumes.refresh()
        lineage.beat()
        assert lineage.may_ship(repository.volume_id) is is_there


def test_a_mark_that_cannot_be_read_is_noticed_and_written_anew(instance: Instance) -> None:
    lineage = lineage_of(instance)
    lineage.beat()
    volume = instance.volumes.tier(1)[0]
    volume.replace_small("lineage.json", b"\0" * 100)
    lineage.beat()
    notice = lineage.files.reverted()
    assert notice is not None and not notice.is_state
    lineage.settle(notice)
    lineage.beat()
    assert len(marks_of(instance)) == 1
    settled = lineage.files.reverted()
    assert settled is not None and settled.reconciled_at and settled.findings == notice.findings
