"""What is written down about volumes, and what of it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs.errors import DataTooNew, VolumeError
from pacs.machine.records import (
    SET_FILE,
    Member,
    SetRecord,
    SystemRecord,
    read_set,
    read_system,
    write_set,
    write_system,
)

MEMBERS = (Member("v1", ("state",), "u1", 1 << 30), Member("v2", ("tier1", "tier2"), "u2", 2 << 30))


def test_a_set_reads_as_it_was_written(tmp_path: Path) -> None:
    record = SetRecord("A", MEMBERS)
    write_set(tmp_path, record)
    assert read_set(tmp_path) == record


def test_a_system_disk_remembers(tmp_path: Path) -> None:
    record = SystemRecord("A", MEMBERS, claiming=True, hardware={"u1": "slot 1"})
    write_system(tmp_path / "new/volumes.json", record)
    assert read_system(tmp_path / "new/volumes.json") == record


def test_a_system_disk_that_never_had_volumes_remembers_nothing(tmp_path: Path) -> None:
    assert read_system(tmp_path / "volumes.json") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 1, "members": [{}]}'])
def test_what_cannot_be_understood_is_not_taken_for_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / SET_FILE).write_text(content)
    with pytest.raises(VolumeError):
        read_set(tmp_path)
    with pytest.raises(VolumeError):
        read_system(tmp_path / SET_FILE)


def test_newer_is_refused(tmp_path: Path) -> None:
    (tmp_path / SET_FILE).write_text(json.dumps({"format": 2, "something": "else", "version": "2.1.0"}))
    for read in (lambda: read_set(tmp_path), lambda: read_system(tmp_path / SET_FILE)):
        with pytest.raises(DataTooNew, match=r"Nothing was touched\. Use the image of version 2\.1\.0"):
            read()
