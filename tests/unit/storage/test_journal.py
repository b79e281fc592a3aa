"""The journal: every line that was acknowledged, in its order, whatever happened to the last one."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from pacs.errors import PacsError, VolumeError, VolumeFailed
from pacs.storage.files import LocalVolume
from pacs.storage.journal import Journal
from pacs.storage.volume import create_identity
from tests.unit.storage.test_durable import failing


def test_what_was_appended_is_read_in_its_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert list(journal.read()) == []
    for number in range(5):
        journal.append("device add", name=f"d{number}\nforged", note='"quoted" \x00 ü')
    found = list(Journal(tmp_path).read())
    assert [line["name"] for line in found] == [f"d{number}\nforged" for number in range(5)]
    assert {line["what"] for line in found} == {"device add"}
    assert [line["at"] for line in found] == sorted(line["at"] for line in found)
    assert len(journal.segments()) == 1


@pytest.mark.parametrize("keep", [0, 1, 10, -2, -1])
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, keep: int) -> None:
    journal = Journal(tmp_path)
    journal.append("one")
    whole = journal.segments()[0].read_bytes()
    journal.append("two")
    second = journal.segments()[0].read_bytes()[len(whole) :]
    journal.segments()[0].write_bytes(whole + second[:keep])
    complete = second[:keep] == second[:-1]  # all but its line end: it is whole as JSON, so it counts
    assert [line["what"] for line in journal.read()] == (["one", "two"] if complete else ["one"])
    journal.append("three")
    assert [line["what"] for line in journal.read()] == (["one", "two", "three"] if complete else ["one", "three"])


def test_a_page_of_zeros_in_the_middle_costs_only_its_lines(tmp_path: Path) -> None:
    """What ext4 may leave of a page that was not written when the power went."""
    journal = Journal(tmp_path)
    journal.append("one")
    with open(journal.segments()[0], "ab") as file:
        file.write(bytes(4096))
    journal.append("two")
    assert [line["what"] for line in journal.read()] == ["one", "two"]


def _append(folder: str, name: str, count: int) -> None:
    journal = Journal(Path(folder))
    for number in range(count):
        journal.append("change", name=name, number=number, filler="x" * 3000)


def test_several_processes_append_at_once(tmp_path: Path) -> None:
    spawned = multiprocessing.get_context("fork")
    processes = [spawned.Process(target=_append, args=(str(tmp_path), f"p{n}", 25)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = list(Journal(tmp_path).read())
    assert len(lines) == 100
    for name in ("p0", "p1", "p2", "p3"):
        assert [line["number"] for line in lines if line["name"] == name] == list(range(25))


def test_an_append_that_fails_is_an_error_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.append("one")
    with monkeypatch.context() as broken:
        failing(broken, "fsync", 5)
        with pytest.raises(VolumeFailed):
            journal.append("two")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(PacsError):
        Journal(blocked).append("three")


def test_a_write_that_was_cut_short_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """write(2) may write less than it was given: on a disk that fills up it does."""
    journal = Journal(tmp_path)
    journal.append("one")
    real = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[: max(1, len(data) // 2)]))
        try:
            journal.append("two")
        except PacsError:
            assert [line["what"] for line in journal.read()] == ["one"]
        else:
            assert [line["what"] for line in journal.read()] == ["one", "two"]


def volume_at(root: Path) -> LocalVolume:
    root.mkdir()
    create_identity(root, ("tier1",))
    return LocalVolume(root, "tier1")


def test_a_volumes_copy_follows(tmp_path: Path) -> None:
    volume = volume_at(tmp_path / "volume")
    journal = Journal(tmp_path / "data")
    assert journal.copy_to(volume) == 0
    journal.append("one")
    assert journal.copy_to(volume) == 1
    assert journal.copy_to(volume) == 0
    journal.append("two")
    assert journal.copy_to(volume) == 1
    copied = volume.read_small(f"journal/{journal.segments()[0].name}")
    assert [json.loads(line)["what"] for line in copied.splitlines()] == ["one", "two"]
    journal.append("three")
    (volume.root / "volume.json").unlink()
    with pytest.raises(VolumeError):
        journal.copy_to(volume)


def test_a_copy_that_fails_is_an_error_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker goes on after an error of the tree, and ends on any other."""
    journal = Journal(tmp_path)
    journal.append("one")
    volume = volume_at(tmp_path / "volume")
    failing(monkeypatch, "fsync", 5)
    with pytest.raises(PacsError):
        journal.copy_to(volume)
