"""The repository: objects by their digest, points that count only when they are whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pacs.backup.repository import PARTS, Manifest, Repository, file_sha256
from pacs.errors import BackupError, DataTooNew, NotFound, PacsError, RestoreError
from tests.unit.storage.test_durable import failing

APPLIANCE = "00000000-0000-4000-8000-000000000001"
CONTENT = b"some object" * 1000
DIGEST = hashlib.sha256(CONTENT).digest()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path, APPLIANCE)


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {"repository.json"}


def make_point(repository: Repository, created: str) -> str:
    folder = repository.new_point()
    for part in PARTS:
        (folder / part).write_text(f"{part} of {created}")
    parts = {part: file_sha256(folder / part) for part in PARTS}
    return repository.complete_point(folder, Manifest(1, APPLIANCE, "0", 1, created, 0, 0, parts))


def test_an_object_that_was_put_is_read(repository: Repository) -> None:
    assert not repository.has_object(DIGEST, len(CONTENT))
    assert repository.put_object(DIGEST, [CONTENT[:100], CONTENT[100:]]) == len(CONTENT)
    assert repository.has_object(DIGEST, len(CONTENT))
    assert not repository.has_object(DIGEST, len(CONTENT) - 1)
    assert b"".join(repository.read_object(DIGEST)) == CONTENT
    with pytest.raises(NotFound):
        list(repository.read_object(bytes(32)))


def test_bytes_that_are_not_the_digests_are_not_kept(repository: Repository) -> None:
    with pytest.raises(BackupError):
        repository.put_object(bytes(32), [CONTENT])
    assert files_below(repository.root) == set()


def test_a_fault_leaves_nothing(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        failing(broken, "fsync", 28)
        with pytest.raises((OSError, PacsError)):
            repository.put_object(DIGEST, [CONTENT])
    assert files_below(repository.root) == set()


def test_another_appliances_or_a_newer_repository_is_not_touched(tmp_path: Path) -> None:
    Repository(tmp_path, APPLIANCE)
    with pytest.raises(BackupError):
        Repository(tmp_path, "00000000-0000-4000-8000-000000000002")
    assert Repository(tmp_path).root == tmp_path  # a restore may read it
    (tmp_path / "repository.json").write_text('{"format": 99, "appliance_id": "x", "new": 1}')
    for appliance in (None, APPLIANCE):
        with pytest.raises(DataTooNew):
            Repository(tmp_path, appliance)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"format": "x"}', '{"format": 1}', "\x00" * 50])
def test_a_damaged_repository_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "repository.json").write_text(content)
    with pytest.raises(BackupError) as caught:
        Repository(tmp_path, APPLIANCE)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_with_other_things_in_it_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(BackupError):
        Repository(tmp_path / "nowhere", APPLIANCE)
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(BackupError):
        Repository(tmp_path, APPLIANCE)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_two_backups_do_not_run_at_once(repository: Repository) -> None:
    with repository.locked(), pytest.raises(BackupError), Repository(repository.root, APPLIANCE).locked():
        raise AssertionError("both hold it")
    with repository.locked():
        pass


def test_points_count_when_they_are_whole(repository: Repository) -> None:
    repository.new_point()  # a backup that was killed
    assert repository.points() == []
    first = make_point(repository, "2026-01-01T00:00:00.000+00:00")
    second = make_point(repository, "2026-01-02T00:00:00.000+00:00")
    assert repository.points() == [first, second]
    manifest = repository.manifest(second)
    for part in PARTS:
        whole = repository.verified_part(second, manifest, part)
        assert whole.read_text() == f"{part} of 2026-01-02T00:00:00.000+00:00"
    damaged = repository.root / "points" / second / PARTS[0]
    damaged.write_text("other bytes")
    with pytest.raises(RestoreError):
        repository.verified_part(second, manifest, PARTS[0])
    with pytest.raises(RestoreError):
        repository.verified_part(second, manifest, "../../repository.json")
    with pytest.raises(NotFound):
        repository.manifest("20250101T000000Z")


@pytest.mark.parametrize("change", ['{"format": 1}', "[]", "null", "", '{"format": "one"}'])
def test_a_damaged_manifest_is_named(repository: Repository, change: str) -> None:
    point = make_point(repository, "2026-01-01T00:00:00.000+00:00")
    (repository.root / "points" / point / "manifest.json").write_text(change)
    with pytest.raises(RestoreError):
        repository.manifest(point)


def test_a_newer_manifest_is_refused(repository: Repository) -> None:
    point = make_point(repository, "2026-01-01T00:00:00.000+00:00")
    path = repository.root / "points" / point / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2, "more": []}))
    with pytest.raises(DataTooNew):
        repository.manifest(point)


def test_old_points_go_and_objects_stay(repository: Repository) -> None:
    repository.put_object(DIGEST, [CONTENT])
    names = [make_point(repository, f"2026-01-0{day}T00:00:00.000+00:00") for day in range(1, 5)]
    assert repository.expire(2) == names[:2]
    assert repository.points() == names[2:]
    assert repository.expire(2) == []
    assert repository.has_object(DIGEST, len(CONTENT))
    assert not [path for path in repository.root.iterdir() if path.name.startswith(".expired")]
