"""Files against rows: what a kill or a disk leaves behind is found, and mended where it can be."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.archive import reconcile as reconciling
from pacs.archive.reconcile import Findings, reconcile
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.index.locks import AlreadyRunning, only_one
from pacs.storage.files import LocalVolume
from tests.planting import LocalSite, copies, double
from tests.synthetic import SyntheticObject, ct_study


def _store(instance: Instance, objects: list[SyntheticObject]) -> None:
    store = instance.store()
    for made in objects:
        store.store(Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid))


def _files(instance: Instance) -> list[Path]:
    return sorted((instance.volumes.tier(1)[0].root / "objects").rglob("*.dcm"))


def _reconcile(instance: Instance, orphan_age_s: float = 0) -> Findings:
    return reconcile(instance.database, instance.volumes.all(), orphan_age_s)


def _forget(instance: Instance) -> None:
    with instance.database.transaction() as connection:
        connection.execute("DELETE FROM copy")
        connection.execute("DELETE FROM object")


def test_a_sound_archive_is_clean(instance: Instance) -> None:
    _store(instance, ct_study(1, 3))
    findings = _reconcile(instance)
    assert findings == Findings(files=3, copies=3)


def test_files_without_rows_are_indexed(instance: Instance) -> None:
    objects = ct_study(2, 3)
    _store(instance, objects)
    _forget(instance)  # as a kill between rename and commit, three times
    findings = _reconcile(instance)
    assert findings.indexed == 3
    assert len(instance.retrieve().wanted({"StudyInstanceUID": [objects[0].study_instance_uid]})) == 3
    assert _reconcile(instance) == Findings(files=3, copies=3)


def test_young_files_are_left_alone(instance: Instance) -> None:
    _store(instance, ct_study(3, 1))
    _forget(instance)
    assert _reconcile(instance, orphan_age_s=3600) == Findings(files=1)
    old = time.time() - 4000
    os.utime(_files(instance)[0], (old, old))
    assert _reconcile(instance, orphan_age_s=3600).indexed == 1


def test_a_missing_file_is_marked_and_found_again(instance: Instance) -> None:
    _store(instance, ct_study(4, 2))
    file = _files(instance)[0]
    file.rename(file.with_suffix(".away"))
    findings = _reconcile(instance, orphan_age_s=3600)
    assert findings.missing == 1 and not findings.is_clean
    file.with_suffix(".away").rename(file)
    assert _reconcile(instance).found_again == 1


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_torn_file_is_marked_bad(instance: Instance, cut: int) -> None:
    _store(instance, ct_study(5, 1))
    (file,) = _files(instance)
    file.write_bytes(file.read_bytes()[:cut])
    assert _reconcile(instance).missing == 1
    with instance.database.transaction() as connection:
        assert connection.execute("SELECT state FROM copy").fetchall() == [{"state": "bad"}]


def test_foreign_and_damaged_files_go_to_quarantine_never_away(instance: Instance) -> None:
    _store(instance, ct_study(6, 1))
    _forget(instance)
    (file,) = _files(instance)
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    (file.parent / "notes.txt").write_text("somebody's")
    findings = _reconcile(instance)
    assert (findings.quarantined, findings.indexed) == (2, 0)
    kept = sorted(path.read_bytes() for path in (instance.volumes.tier(1)[0].root / "quarantine").iterdir())
    assert kept == sorted([bytes(damaged), b"somebody's"])


def test_what_was_never_acknowledged_is_removed(instance: Instance) -> None:
    part = instance.volumes.tier(1)[0].root / "incoming" / "0123456789abcdef.part"
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(b"half")
    assert _reconcile(instance).temporary_removed == 1
    assert not part.exists()


def test_a_second_file_of_a_stored_object_is_put_aside(instance: Instance) -> None:
    """A kill after the rename of a duplicate: its bytes are safe already."""
    _store(instance, ct_study(7, 1))
    (file,) = _files(instance)
    file.with_name(file.name.split("-")[0] + "-0123456789ab.dcm").write_bytes(file.read_bytes())
    findings = _reconcile(instance)
    assert (findings.quarantined, findings.missing) == (1, 0)
    assert _files(instance) == [file]


@pytest.mark.parametrize("rows_at_once", [1, 2, 7, 5000])
def test_files_and_rows_are_matched_whatever_their_names(
    instance: Instance, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and rows come in pages and in the order of bytes: names around `/` in that order are the trap."""
    monkeypatch.setattr(reconciling, "ROWS_AT_ONCE", rows_at_once)
    objects = [made for seed in range(1, 5) for made in ct_study(seed, 4)]
    _store(instance, objects)
    site = LocalSite(instance.volumes.tier(1)[0], instance.volumes.tier(1)[0].root)
    folders = ["a", "a-b", "a.b", "a/b", "a0", "ä", "ab", "A", "~", "日本"]
    for number, row in enumerate(copies(instance)):
        path = f"objects/1/2026/{folders[number % len(folders)]}/{Path(row['path']).name}"
        content = site.get(row["path"])
        site.delete(row["path"])
        if number % 5 != 4:
            site.put(path, content)
        with instance.database.transaction() as connection:
            connection.execute("UPDATE copy SET path = %s WHERE copy_key = %s", (path, row["copy_key"]))
    foreign = [f"objects/1/2026/{name}" for name in ("a-", "a!", "a.txt", "a/b.txt", "ä.txt", "~~", " ")]
    for path in foreign:
        site.put(path, b"somebody's")
    findings = _reconcile(instance)
    assert (findings.copies, findings.missing, findings.quarantined) == (16, 3, len(foreign))
    assert (findings.files, findings.indexed) == (13 + len(foreign), 0)
    assert len(site.paths("objects")) == 13


def test_names_that_are_no_text_are_put_aside(instance: Instance) -> None:
    _store(instance, ct_study(8, 1))
    folder = os.fsencode(_files(instance)[0].parent)
    for name in (b"\xff\xfe.dcm", b"new\nline", b"\x1b[2J"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"somebody's")
    findings = _reconcile(instance)
    assert (findings.quarantined, findings.missing, findings.failed) == (3, 0, [])
    assert len(_files(instance)) == 1


def test_a_whole_file_without_a_row_is_taken_for_the_lost_copy(instance: Instance) -> None:
    """As a repair leaves it that was killed before its commit. The object has another copy, which counts for nothing
    here: this volume's is lost."""
    _store(instance, ct_study(9, 1))
    double(instance, instance.volumes.tier(2)[0])
    (file,) = _files(instance)
    written = file.with_name(file.name.split("-")[0] + "-0123456789ab.dcm")
    file.rename(written)
    findings = _reconcile(instance)
    assert (findings.missing, findings.adopted + findings.quarantined) == (1, 1)
    if findings.adopted == 0:  # it was met before the missing one: that depends on the names
        return
    assert [row["state"] for row in copies(instance)] == ["good", "good"]


def test_a_lost_copy_is_found_in_the_next_night_wherever_its_name_sorts(instance: Instance) -> None:
    _store(instance, ct_study(10, 1))
    double(instance, instance.volumes.tier(2)[0])
    (file,) = _files(instance)
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'missing' WHERE path = %s", (str(file).split("tier1/")[1],))
    file.rename(file.with_name(file.name.split("-")[0] + "-0123456789ab.dcm"))
    assert _reconcile(instance).adopted == 1
    assert [row["state"] for row in copies(instance)] == ["good", "good"]
    assert _reconcile(instance) == Findings(files=2, copies=2)


def test_a_link_without_a_row_is_put_aside_and_what_it_points_to_stays(instance: Instance) -> None:
    """As when a repair was killed after its commit, and before it put a link away that stood in the file's place."""
    _store(instance, ct_study(11, 1))
    _forget(instance)
    (file,) = _files(instance)
    content, real = file.read_bytes(), instance.settings.data / "elsewhere"
    file.rename(real)
    file.symlink_to(real)
    findings = _reconcile(instance, orphan_age_s=0)
    assert (findings.quarantined, findings.unreadable, findings.is_clean) == (1, 0, True)
    assert not file.is_symlink() and real.read_bytes() == content
    assert _reconcile(instance, orphan_age_s=0) == Findings()


def test_one_volume_that_is_gone_keeps_no_other_from_being_compared(instance: Instance) -> None:
    _store(instance, ct_study(12, 2))
    double(instance, instance.volumes.tier(2)[0])
    root = instance.volumes.tier(1)[0].root
    _files(instance)[0].unlink()
    root.rename(root.with_name("unplugged"))
    (Path(instance.volumes.tier(2)[0].location) / "objects" / "1" / "x").write_bytes(b"somebody's")
    findings = _reconcile(instance)
    assert (len(findings.failed), findings.quarantined, findings.missing) == (1, 1, 0)
    root.with_name("unplugged").rename(root)
    assert _reconcile(instance).missing == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_listed_makes_no_file_missing(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _store(instance, ct_study(13, 2))
    folder, scandir = _files(instance)[0].parent, os.scandir

    def broken(path: Path) -> Iterator[os.DirEntry[str]]:
        if Path(path) == folder:
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", broken)
    findings = _reconcile(instance)
    assert findings.missing == 0 and len(findings.failed) == 1 and os.strerror(number) in findings.failed[0]


def test_only_one_compares_at_a_time(instance: Instance) -> None:
    with only_one(instance.database, "reconcile"), pytest.raises(AlreadyRunning):
        _reconcile(instance)


def test_a_volume_that_lists_out_of_order_is_refused(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole files would be taken for missing."""
    _store(instance, ct_study(14, 3))
    walk = LocalVolume.walk
    monkeypatch.setattr(LocalVolume, "walk", lambda volume: reversed(list(walk(volume))))
    findings = _reconcile(instance)
    assert findings.missing == 0 and len(findings.failed) == 1
