"""Backup and restore: what comes back is what was there, and what is damaged never passes for whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pacs.archive import devices
from pacs.archive.receipts import ReceiptWriter
from pacs.archive.reconcile import reconcile
from pacs.archive.store import Arrival
from pacs.backup.backup import Backup, Done
from pacs.backup.mark import MARK
from pacs.backup.repository import Repository
from pacs.backup.restore import Restore
from pacs.cli.instance import Instance, open_instance
from pacs.errors import BackupError, DataTooNew, NotFound, RestoreError
from pacs.index import database as index
from pacs.index.devices import Device, list_devices
from pacs.index.query import study_list
from pacs.model.tier_rules import Rule
from pacs.storage.journal import Journal
from pacs.storage.kinds import Room
from pacs.storage.receipts import Receipts
from pacs.storage.volume import create_identity
from tests.serving import stored_bytes
from tests.synthetic import SyntheticObject, ct_study
from tests.tiers import follow


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


@pytest.fixture
def second_instance(cluster, tmp_path: Path) -> Iterator[Instance]:
    """Another, empty appliance."""
    base = f"host={cluster.sockets} user=pacs"
    with psycopg.connect(f"{base} dbname=postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS second WITH (FORCE)")
        connection.execute("CREATE DATABASE second")
    data = tmp_path / "second"
    (data / "config").mkdir(parents=True)
    create_identity(data, ("state",))
    (data / "config" / "pacs.toml").write_text(f'database = "{base} dbname=second"\nsettle_s = 0\n')
    database = index.Database(f"{base} dbname=second")
    index.migrate(database)
    database.close()
    with open_instance(data) as opened:
        yield opened


def _store(instance: Instance, objects: list[SyntheticObject]) -> None:
    store = instance.store()
    for made in objects:
        store.store(Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid))


def _backup(instance: Instance, repository: Path, keep: int = 14) -> Done:
    return Backup(instance.settings.data, instance.database, instance.volumes, repository, keep).run()


def _restore(instance: Instance, repository: Path, point: str | None = None) -> None:
    job = Restore(instance.settings.data, instance.database, instance.volumes, Repository(repository))
    job.finish(*job.run(point))


def _bytes_of(instance: Instance, study: str) -> dict[str, bytes]:
    retrieve = instance.retrieve()
    found = retrieve.wanted({"StudyInstanceUID": [study]})
    return {wanted.sop_instance_uid: stored_bytes(retrieve, wanted) for wanted in found}


def test_everything_comes_back(instance: Instance, second_instance: Instance, repository: Path) -> None:
    moved, stayed = ct_study(1, 4), ct_study(2, 3)
    _store(instance, moved)
    follow(instance, Rule("down", 1, 2))
    _store(instance, stayed)
    journal = Journal(instance.settings.data)
    devices.add_device(instance.database, journal, Device("CT room 2", "CT2", "192.0.2.7", 104))
    done = _backup(instance, repository)
    assert (done.objects, done.copied) == (7, 7)

    _restore(second_instance, repository)
    for objects in (moved, stayed):
        expected = {made.sop_instance_uid: made.dataset for made in objects}
        assert _bytes_of(second_instance, objects[0].study_instance_uid) == expected
    assert list_devices(second_instance.database) == list_devices(instance.database)
    *lines, restored = Journal(second_instance.settings.data).read()
    assert lines == list(journal.read())
    assert restored["what"] == "restore"
    receipts = Receipts(second_instance.settings.data)
    assert ReceiptWriter(second_instance.database, receipts).run() == 7, "its volumes get receipts of their own"
    there, here = study_list(second_instance.database, 10), study_list(instance.database, 10)
    assert [(row["study_instance_uid"], row["tiers"]) for row in there] == [
        (row["study_instance_uid"], row["tiers"]) for row in here
    ]
    assert reconcile(second_instance.database, second_instance.volumes.all(), 0).is_clean
    assert not (second_instance.settings.data / MARK).exists()
    # It goes on working: new objects, and its own next backup.
    _store(second_instance, ct_study(3, 2))


def test_the_second_backup_copies_only_what_is_new(instance: Instance, repository: Path) -> None:
    _store(instance, ct_study(1, 3))
    _backup(instance, repository)
    _store(instance, ct_study(2, 2))
    done = _backup(instance, repository)
    assert (done.objects, done.copied) == (5, 2)
    assert len(Repository(repository).points()) == 2


def test_an_older_point_restores_what_was_then(instance: Instance, second_instance: Instance, repository: Path) -> None:
    _store(instance, ct_study(1, 2))
    first = _backup(instance, repository)
    _store(instance, ct_study(2, 2))
    _backup(instance, repository)
    _restore(second_instance, repository, first.point)
    assert len(study_list(second_instance.database, 10)) == 1


def test_old_points_expire_and_objects_stay(instance: Instance, repository: Path) -> None:
    _store(instance, ct_study(1, 2))
    points = [_backup(instance, repository, keep=2).point for _ in range(4)]
    opened = Repository(repository)
    assert opened.points() == points[-2:]
    assert len([path for path in (repository / "objects").rglob("*") if path.is_file()]) == 2


@pytest.mark.parametrize("part", ["database.dump", "state.tar", "objects.tsv"])
def test_a_damaged_part_is_refused_before_anything_is_touched(
    instance: Instance, second_instance: Instance, repository: Path, part: str
) -> None:
    _store(instance, ct_study(1, 1))
    point = _backup(instance, repository).point
    path = repository / "points" / point / part
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RestoreError, match=part):
        _restore(second_instance, repository)
    assert study_list(second_instance.database, 10) == []
    assert not list((second_instance.volumes.tier(1)[0].root / "objects").rglob("*.dcm"))


def test_a_missing_object_is_refused_before_anything_is_touched(
    instance: Instance, second_instance: Instance, repository: Path
) -> None:
    _store(instance, ct_study(1, 2))
    _backup(instance, repository)
    next(path for path in (repository / "objects").rglob("*") if path.is_file()).unlink()
    with pytest.raises(RestoreError, match="missing from the repository"):
        _restore(second_instance, repository)
    assert not list((second_instance.volumes.tier(1)[0].root / "objects").rglob("*.dcm"))


def test_a_damaged_object_is_refused_and_the_restore_can_be_run_again(
    instance: Instance, second_instance: Instance, repository: Path
) -> None:
    objects = ct_study(1, 2)
    _store(instance, objects)
    _backup(instance, repository)
    damaged = next(path for path in (repository / "objects").rglob("*") if path.is_file())
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(RestoreError, match="damaged"):
        _restore(second_instance, repository)
    assert study_list(second_instance.database, 10) == []
    with pytest.raises(RestoreError, match="did not finish"), open_instance(second_instance.settings.data):
        pass
    damaged.write_bytes(good)
    _restore(second_instance, repository)
    assert len(_bytes_of(second_instance, objects[0].study_instance_uid)) == 2


def test_a_restore_onto_images_is_refused(instance: Instance, second_instance: Instance, repository: Path) -> None:
    _store(instance, ct_study(1, 1))
    _backup(instance, repository)
    _store(second_instance, ct_study(9, 1))
    with pytest.raises(RestoreError, match="holds images"):
        _restore(second_instance, repository)
    assert len(study_list(second_instance.database, 10)) == 1


def test_a_backup_without_a_readable_copy_does_not_count(instance: Instance, repository: Path) -> None:
    _store(instance, ct_study(1, 2))
    _backup(instance, repository)
    _store(instance, ct_study(2, 1))
    newest = max(
        (instance.volumes.tier(1)[0].root / "objects").rglob("*.dcm"), key=lambda path: path.stat().st_mtime_ns
    )
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    with pytest.raises(BackupError, match="does not count"):
        _backup(instance, repository)
    assert len(Repository(repository).points()) == 1
    with instance.database.transaction() as connection:
        rows = connection.execute("SELECT succeeded FROM run WHERE kind = 'backup' ORDER BY run_key").fetchall()
    assert [row["succeeded"] for row in rows] == [True, False]


def test_another_appliances_repository_is_refused(
    instance: Instance, second_instance: Instance, repository: Path
) -> None:
    _backup(instance, repository)
    before = sorted(repository.rglob("*"))
    with pytest.raises(BackupError, match="is of appliance"):
        _backup(second_instance, repository)
    assert sorted(repository.rglob("*")) == before


def test_a_folder_with_other_things_is_no_repository(instance: Instance, repository: Path) -> None:
    (repository / "holiday.jpg").write_bytes(b"")
    with pytest.raises(BackupError, match="not empty"):
        _backup(instance, repository)


def test_a_newer_point_is_refused(instance: Instance, second_instance: Instance, repository: Path) -> None:
    point = _backup(instance, repository).point
    path = repository / "points" / point / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["schema"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataTooNew):
        _restore(second_instance, repository)


def test_no_point_and_an_unknown_one(instance: Instance, second_instance: Instance, repository: Path) -> None:
    with pytest.raises(BackupError, match="no repository"):
        Repository(repository)
    _backup(instance, repository)
    with pytest.raises(NotFound, match="no recovery point 1999"):
        _restore(second_instance, repository, "1999")
    shutil.rmtree(repository / "points")
    with pytest.raises(NotFound, match="no recovery point"):
        _restore(second_instance, repository)


def test_two_at_once_are_refused(instance: Instance, repository: Path) -> None:
    _backup(instance, repository)
    with Repository(repository).locked(), pytest.raises(BackupError, match="at work"):
        _backup(instance, repository)


def test_volumes_too_small_are_told_before_anything_is_written(
    instance: Instance, second_instance: Instance, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _store(instance, ct_study(1, 2))
    _backup(instance, repository)
    for volume in second_instance.volumes.all():
        monkeypatch.setattr(volume, "room", lambda: Room(10_000, 9_000, 1_000))
    with pytest.raises(RestoreError, match="too small"):
        _restore(second_instance, repository)
    assert not (second_instance.settings.data / MARK).exists()
