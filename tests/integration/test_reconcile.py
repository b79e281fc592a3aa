"""Files against rows: what a kill or a disk leaves behind is found, and mended where it can be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pacs.archive.reconcile import Findings, reconcile
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
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
    instance.volumes.tier(1)[0].require_writable()  # makes the folder for it
    part = instance.volumes.tier(1)[0].root / "incoming" / "0123456789abcdef.part"
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
