"""Volumes added, drained, retired; several in a tier; gone and back: on real file systems and a real index."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs.archive.store import Announced, Arrival, Arriving, StoreSession
from pacs.archive.volume_changes import RETIRED_NOTE, VolumeChanges
from pacs.checks import volumes as volume_check
from pacs.checks.check import Subject
from pacs.cli.instance import Instance, open_instance
from pacs.errors import ForeignVolume, PacsError, UsageError, VolumeFailed, VolumeFull, VolumeMissing
from pacs.index import volumes as rows
from pacs.index.runs import totals
from pacs.storage import mounts
from pacs.storage.files import RESERVED_BYTES
from pacs.storage.kinds import Room
from pacs.storage.volume import create_identity
from tests.mounted import FileSystem, file_system
from tests.synthetic import SyntheticObject, ct_study
from tests.unit.cli.conftest import Run, run  # noqa: F401 (a fixture)
from tests.unit.storage.test_durable import failing


@pytest.fixture
def changes(instance: Instance) -> VolumeChanges:
    return VolumeChanges(instance.database, instance.journal, instance.settings.data, instance.volumes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "second"
    made.mkdir()
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FileSystem]:
    with file_system(tmp_path / "disk") as made:
        yield made


def arrival(made: SyntheticObject) -> Arrival:
    return Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)


def on(instance: Instance) -> dict[str, int]:
    """How many good copies each volume has, by name."""
    with instance.database.transaction() as connection:
        found = connection.execute(
            "SELECT v.name, count(*) AS n FROM copy c JOIN volume v USING (volume_id) WHERE c.state = 'good' GROUP BY 1"
        ).fetchall()
    return {row["name"]: row["n"] for row in found}


def journalled(instance: Instance) -> list[tuple[str, str]]:
    return [(line["what"], line["name"]) for line in instance.journal.read()]


def has_room(monkeypatch: pytest.MonkeyPatch, instance: Instance, **free_bytes: int) -> None:
    """Let volumes say that so much is free. They share one real disk."""
    for row in instance.volumes.rows:
        if row.name in free_bytes:
            room = Room(1 << 40, (1 << 40) - free_bytes[row.name], free_bytes[row.name])
            monkeypatch.setattr(instance.volumes.by_id[row.volume_id], "room", lambda room=room: room)


# --- add -------------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_volume_and_is_used(
    instance: Instance, changes: VolumeChanges, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = changes.add("disk2", str(folder), 1, on_system_disk=True)
    assert all(finding.is_well for finding in added.findings)
    assert journalled(instance) == [("volume add", "disk2")]
    assert [volume.location for volume in instance.volumes.tier(1)][1:] == [str(folder)]
    assert sorted(path.name for path in folder.iterdir()) == ["incoming", "volume.json"]
    has_room(monkeypatch, instance, tier1=1 << 30, disk2=1 << 40)
    for made in ct_study(1, 3):
        assert instance.store().store(arrival(made)) == "stored"
    assert on(instance) == {"disk2": 3}
    with open_instance(instance.settings.data) as again:
        assert {row.name for row in again.volumes.rows} == {"tier1", "tier2", "disk2"}
        assert again.volumes.absent == {}


def test_a_volume_that_another_process_has_just_added_is_found_when_a_copy_on_it_is_asked_for(
    instance: Instance, changes: VolumeChanges, folder: Path
) -> None:
    with open_instance(instance.settings.data) as another:
        known = {row.volume_id for row in another.volumes.rows}
        changes.add("disk2", str(folder), 1, on_system_disk=True)
        (added,) = {row.volume_id for row in instance.volumes.rows} - known
        assert another.volumes.get(added).location == str(folder)
        with pytest.raises(VolumeMissing, match="not known here"):
            another.volumes.get("00000000-0000-0000-0000-000000000000")


def test_what_cannot_be_a_volume_is_refused_and_left_as_it_was(
    instance: Instance, changes: VolumeChanges, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(
        error: type[PacsError], words: str, location: Path = folder, name: str = "disk2", tier: int = 2
    ) -> None:
        before = sorted(location.rglob("*")) if location.exists() else []
        with pytest.raises(error, match=words):
            changes.add(name, str(location), tier, on_system_disk=True)
        assert (sorted(location.rglob("*")) if location.exists() else []) == before

    with pytest.raises(UsageError, match="disk of the system"):
        changes.add("disk2", str(folder), 2)
    refused(UsageError, "small letters", name="Disk 2")
    refused(UsageError, "none of tier1", name="tier3")
    refused(UsageError, "no folder", tmp_path / "nowhere")
    refused(UsageError, "inside the other", instance.settings.data / "tier1" / "objects")
    refused(UsageError, "inside the other", tmp_path)
    (folder / "holiday.jpg").touch()
    refused(UsageError, "holiday.jpg")
    (folder / "holiday.jpg").unlink()
    with monkeypatch.context() as broken:
        failing(broken, "fsync", errno.EIO, from_call=4)
        refused(PacsError, "failed")
    assert list(folder.iterdir()) == []
    create_identity(folder, ("tier2",))
    refused(ForeignVolume, "Nothing was touched")
    (folder / "volume.json").unlink()
    own = instance.volumes.tier(1)[0].identity.appliance_id
    create_identity(folder, ("tier1",), own)
    refused(UsageError, "Give --tier")
    assert journalled(instance) == []
    assert len(rows.list_volumes(instance.database, with_retired=True)) == 2

    changes.add("disk2", str(folder), 1, on_system_disk=True)  # ours, and not in the index: it is taken up
    refused(UsageError, "a volume disk2 already")
    refused(UsageError, "inside the other", name="disk3")
    shutil.copytree(folder, tmp_path / "copy")
    refused(UsageError, "which is in use", tmp_path / "copy", "disk3", 1)


def test_a_disk_of_its_own_needs_no_flag(instance: Instance, changes: VolumeChanges, disk: FileSystem) -> None:
    added = changes.add("disk2", str(disk.root), 2)
    assert added.notes == []
    assert added.volume.options["type"] == "ext4"
    (disk.root / "b").mkdir()
    with pytest.raises(UsageError, match="inside the other"):
        changes.add("disk3", str(disk.root / "b"), 2)


def test_a_disk_that_is_read_only_is_no_volume(changes: VolumeChanges, disk: FileSystem) -> None:
    disk.remount("ro")
    with pytest.raises(UsageError, match="read-only"):
        changes.add("disk2", str(disk.root), 2)


# --- drain, retire ---------------------------------------------------------------------------------------------------


def test_a_volume_drains_and_retires_when_nothing_is_left(
    instance: Instance, changes: VolumeChanges, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ct_study(2, 2)
    with pytest.raises(UsageError, match="only volume in service in tier 1"):
        changes.drain("tier1")
    changes.add("disk2", str(folder), 1, on_system_disk=True)
    has_room(monkeypatch, instance, tier1=1 << 30, disk2=1 << 40)
    store = instance.store()
    assert store.store(arrival(first)) == "stored"
    with pytest.raises(UsageError, match="in service"):
        changes.retire("disk2")
    left = changes.drain("disk2")
    assert (left.copies, left.only_here) == (1, 1)
    assert store.store(arrival(second)) == "stored"
    assert on(instance) == {"disk2": 1, "tier1": 1}, "nothing new comes to it"
    for leave_copies in (False, True):
        with pytest.raises(UsageError, match="no good copy but on disk2"):
            changes.retire("disk2", leave_copies)

    volume = next(each for each in instance.volumes.draining())
    with instance.database.transaction() as connection:
        (copy,) = rows.copies_on(connection, volume.volume_id)
        target = instance.volumes.tier(2)[0]
        target.put(copy["path"], volume.read(copy["path"]), copy["size_bytes"])
        rows.add_copy(connection, copy["object_key"], target.volume_id, copy["path"])
    with pytest.raises(UsageError, match="1 copies are left"):
        changes.retire("disk2")
    assert changes.retire("disk2", leave_copies=True).copies == 1
    assert on(instance) == {"tier1": 1, "tier2": 1}
    assert json.loads((folder / RETIRED_NOTE).read_text())["copies_left"] == 1
    assert [row.name for row in instance.volumes.rows] == ["tier1", "tier2"]
    with pytest.raises(VolumeMissing):
        instance.volumes.get(volume.volume_id)
    assert rows.volume_named(instance.database, "disk2").state == "retired"
    assert [what for what, _name in journalled(instance)] == ["volume add", "volume drain", "volume retire"]
    with pytest.raises(UsageError, match="is retired"):
        changes.undrain("disk2")
    with pytest.raises(UsageError, match="which is retired"):
        changes.add("disk3", str(folder), 1, on_system_disk=True)


def test_a_drain_can_be_undone(instance: Instance, changes: VolumeChanges) -> None:
    changes.drain("tier2")
    assert instance.volumes.tier(2) == []
    with pytest.raises(VolumeMissing, match="No volume of tier 2"):
        instance.volumes.place(2, 0)
    changes.undrain("tier2")
    assert len(instance.volumes.tier(2)) == 1
    changes.undrain("tier2")
    assert journalled(instance) == [("volume drain", "tier2"), ("volume undrain", "tier2")]


def test_an_object_on_its_way_to_a_volume_that_retires_is_not_lost_there(
    instance: Instance, changes: VolumeChanges, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was begun before the volume drained, in a receiver that is slow. Its sender is told to send it again."""
    objects = ct_study(3, 3)
    store, session = instance.store(), StoreSession()

    def begin(made: SyntheticObject) -> Arriving:
        announced = Announced(made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
        arriving = store.begin(announced, session)
        arriving.write(memoryview(made.dataset))
        return arriving

    for number, is_series_known in enumerate((False, True)):
        place = folder / str(number)
        place.mkdir()
        changes.add(f"disk{number}", str(place), 1, on_system_disk=True)
        has_room(monkeypatch, instance, **{"tier1": 1 << 30, f"disk{number}": 1 << 40})
        arriving = begin(objects[number])
        changes.drain(f"disk{number}")
        changes.retire(f"disk{number}")
        assert bool(session._above) is is_series_known  # that is inserted in another way
        retired = rows.volume_named(instance.database, f"disk{number}").volume_id
        with pytest.raises(PacsError) as raised:
            arriving.finish()
        assert raised.value.status == 0xA700
        assert list((place / "objects").rglob("*.dcm")) == []
        assert begin(objects[number]).finish() == "stored"
    assert on(instance) == {"tier1": 2}
    # What moves is as late as what arrives.
    with pytest.raises(VolumeMissing, match="was retired"), instance.database.transaction() as connection:
        connection.execute(
            "INSERT INTO copy (tenant_id, object_key, volume_id, path)"
            " SELECT tenant_id, object_key, %s, object_key FROM object",
            (retired,),
        )


@pytest.mark.parametrize(
    "kind, options", [("nfs4", "rw,hard,sync"), ("nfs4", "rw,hard"), ("nfs4", "rw,soft,sync"), ("cifs", "rw")]
)
def test_of_shares_only_nfs_that_is_hard_and_sync_receives(
    instance: Instance, changes: VolumeChanges, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: str
) -> None:
    """What the kernel says of the mounts is made up; the folder is one of this machine."""
    made_up = folder.with_name("mountinfo")
    made_up.write_text(
        Path("/proc/self/mountinfo").read_text() + f"999 1 0:99 / {folder} rw - {kind} nas:/x {options}\n"
    )
    monkeypatch.setattr(mounts, "MOUNTINFO", made_up)
    if options != "rw,hard,sync":
        with pytest.raises(UsageError, match="tier 2 or 3"):
            changes.add("nas", str(folder), 1)
        assert list(folder.iterdir()) == []
        return
    changes.add("nas", str(folder), 1)
    has_room(monkeypatch, instance, tier1=1 << 30, nas=1 << 40)
    assert instance.store().store(arrival(ct_study(10, 1)[0])) == "stored"
    assert on(instance) == {"nas": 1}
    made_up.write_text(made_up.read_text().replace("hard,sync", "hard"))  # mounted anew, and otherwise
    with open_instance(instance.settings.data) as restarted:
        assert [each.location for each in restarted.volumes.tier(1)][1:] == [str(folder)], "it can be read"
        has_room(monkeypatch, restarted, tier1=1 << 30, nas=1 << 40)
        assert restarted.store().store(arrival(ct_study(11, 1)[0])) == "stored"
        assert on(instance) == {"nas": 1, "tier1": 1}
        result = volume_check.run(Subject(restarted.settings, restarted.database, restarted.volumes))
        assert (result.severity, result.name) == ("warning", "volumes")
        assert "receives nothing" in result.message
        assert "-o hard,sync" in result.hint


# --- several in a tier -----------------------------------------------------------------------------------------------


def test_where_one_is_full_the_next_takes_it(
    instance: Instance, changes: VolumeChanges, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes.add("disk2", str(folder), 1, on_system_disk=True)
    has_room(monkeypatch, instance, tier1=1 << 40, disk2=1 << 39)
    store, objects = instance.store(), ct_study(4, 6)
    assert store.store(arrival(objects[0])) == "stored"
    with monkeypatch.context() as full:  # in the middle of an object: only that one fails
        failing(full, "write", errno.ENOSPC, from_call=2)
        with pytest.raises(VolumeFull):
            store.store(arrival(objects[1]))
    assert store.store(arrival(objects[1])) == "stored"
    assert on(instance) == {"tier1": 1, "disk2": 1}
    has_room(monkeypatch, instance, tier1=RESERVED_BYTES - 1, disk2=1 << 39)
    instance.volumes.refresh()
    assert store.store(arrival(objects[2])) == "stored"
    assert on(instance) == {"tier1": 1, "disk2": 2}
    has_room(monkeypatch, instance, disk2=RESERVED_BYTES - 1)
    instance.volumes.refresh()
    with pytest.raises(VolumeFull):
        store.store(arrival(objects[3]))
    has_room(monkeypatch, instance, tier1=1 << 40)
    instance.volumes.refresh()
    assert store.store(arrival(objects[3])) == "stored"
    assert on(instance) == {"tier1": 2, "disk2": 2}


def test_another_process_learns_of_it_without_a_restart(
    instance: Instance, changes: VolumeChanges, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs.archive.volumes.REFRESH_S", 0.05)
    with open_instance(instance.settings.data) as other, other.volumes.watched():
        changed = threading.Event()
        real = other.volumes.refresh
        wanted: list[tuple[str, str]] = []

        def refresh() -> None:
            real()
            if [(row.name, row.state) for row in other.volumes.rows if row.name != "tier2"] == wanted:
                changed.set()

        monkeypatch.setattr(other.volumes, "refresh", refresh)
        for change, then in (
            (lambda: changes.add("disk2", str(folder), 1, on_system_disk=True), [("disk2", "active")]),
            (lambda: changes.drain("disk2"), [("disk2", "draining")]),
            (lambda: changes.retire("disk2"), []),
        ):
            wanted[:] = [("tier1", "active"), *then]
            changed.clear()
            change()
            assert changed.wait(10), then


# --- gone and back ---------------------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(instance: Instance, changes: VolumeChanges, disk: FileSystem) -> FileSystem:
    """A second volume of tier 1, on a disk of its own; the first takes nothing."""
    changes.add("disk2", str(disk.root), 1)
    first = instance.volumes.tier(1)[0]
    shutil.move(first.root / "volume.json", first.root / "away")
    instance.volumes.refresh()
    return disk


def test_a_mount_that_vanished_is_noticed_before_a_byte_and_comes_back_by_itself(
    instance: Instance, on_disk: FileSystem
) -> None:
    store, (one, two, three) = instance.store(), ct_study(5, 3)
    assert store.store(arrival(one)) == "stored"
    on_disk.unmount()
    with pytest.raises(VolumeMissing) as raised:
        store.store(arrival(two))
    assert raised.value.status == 0xA700
    assert list(on_disk.root.iterdir()) == []
    instance.volumes.refresh()
    assert len(instance.volumes.absent) == 2
    with pytest.raises(VolumeMissing):
        store.store(arrival(two))
    assert list(on_disk.root.iterdir()) == []

    with open_instance(instance.settings.data) as restarted:  # nothing stops for it
        assert len(restarted.volumes.absent) == 2
        with pytest.raises(VolumeMissing):
            restarted.store().store(arrival(two))
        assert list(on_disk.root.iterdir()) == []
        on_disk.mount()
        restarted.volumes.refresh()
        assert restarted.store().store(arrival(two)) == "stored"
    instance.volumes.refresh()
    assert store.store(arrival(three)) == "stored"
    assert on(instance) == {"disk2": 3}


def test_a_mount_that_vanishes_while_an_object_comes_leaves_nothing_below_it(
    instance: Instance, on_disk: FileSystem
) -> None:
    store, made = instance.store(), ct_study(6, 1)[0]
    session = StoreSession()
    arriving = store.begin(Announced(made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid), session)
    arriving.write(memoryview(made.dataset)[:100])
    on_disk.unmount()
    arriving.write(memoryview(made.dataset)[100:])
    with pytest.raises(PacsError) as raised:
        arriving.finish()
    assert raised.value.status == 0xA700
    assert list(on_disk.root.iterdir()) == []
    assert totals(instance.database)["objects"] == 0


def test_a_mount_that_came_back_empty_or_as_another_disk_is_not_written_to(
    instance: Instance, on_disk: FileSystem, tmp_path: Path
) -> None:
    store, made = instance.store(), ct_study(7, 1)[0]
    on_disk.unmount()
    with file_system(tmp_path / "other") as other:
        for identity in (None, ("tier1",)):
            if identity:
                create_identity(other.root, identity, instance.volumes.rows[0].volume_id)
            other.unmount()
            on_disk.image, mine = other.image, on_disk.image
            on_disk.mount()
            on_disk.image = mine
            before = sorted(on_disk.root.rglob("*"))
            with pytest.raises(VolumeMissing):
                store.store(arrival(made))
            instance.volumes.refresh()
            with pytest.raises(VolumeMissing):
                store.store(arrival(made))
            assert sorted(on_disk.root.rglob("*")) == before
            on_disk.unmount()
            other.mount()
    on_disk.mount()
    instance.volumes.refresh()
    assert store.store(arrival(made)) == "stored"


def test_a_volume_that_hangs_holds_nobody_up(
    instance: Instance, changes: VolumeChanges, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share whose server is silent does so. Its look begins only once, and counts when it is over."""
    changes.add("disk2", str(folder), 1, on_system_disk=True)
    hanging = instance.volumes.tier(1)[0]
    answers, begun = threading.Event(), []
    monkeypatch.setattr("pacs.archive.volumes.LOOK_S", 0.05)
    monkeypatch.setattr(hanging, "require_present", lambda: (begun.append(1), answers.wait(60)))
    for _turn in range(3):
        instance.volumes.refresh()
    assert begun == [1]
    assert "does not answer" in str(instance.volumes.absent[hanging.volume_id])
    for made in ct_study(9, 2):
        assert instance.store().store(arrival(made)) == "stored"
    assert on(instance) == {"disk2": 2}
    monkeypatch.setattr("pacs.archive.volumes.LOOK_S", 60)
    answers.set()
    instance.volumes.refresh()
    assert instance.volumes.absent == {}


def test_a_disk_that_went_read_only_is_read_and_not_written(instance: Instance, on_disk: FileSystem) -> None:
    store, (one, two) = instance.store(), ct_study(8, 2)
    assert store.store(arrival(one)) == "stored"
    on_disk.remount("ro")
    with pytest.raises(VolumeFailed, match="can only be read"):
        store.store(arrival(two))
    with open_instance(instance.settings.data) as restarted:
        retrieve = restarted.retrieve()
        (wanted,) = retrieve.wanted({"SOPInstanceUID": [one.sop_instance_uid]})
        stored = retrieve.open(wanted)
        assert b"".join(map(bytes, stored.pieces())) == one.dataset
        stored.close()
    first = next(row for row in instance.volumes.rows if row.name == "tier1")
    shutil.move(Path(first.location) / "away", Path(first.location) / "volume.json")
    instance.volumes.refresh()
    assert store.store(arrival(two)) == "stored", "another of the tier takes it"
    assert on(instance) == {"disk2": 1, "tier1": 1}


# --- the commands ----------------------------------------------------------------------------------------------------


def test_the_commands(run: Run, new_instance: Callable[[], Path], tmp_path: Path) -> None:  # noqa: F811
    data, folder = new_instance(), tmp_path / "second"
    folder.mkdir()

    def pacs(*words: object, code: int = 0) -> str:
        outcome = run("--data", data, "volume", *words)
        assert outcome.code == code, outcome.err
        return outcome.out if code == 0 else outcome.err

    assert "services use it within seconds" in pacs("add", "disk2", folder, "--tier", 2, "--on-system-disk")
    assert "inside the other" in pacs("add", "disk3", folder, "--tier", 2, "--on-system-disk", code=2)
    found = {each["name"]: each for each in json.loads(pacs("list", "--json"))}
    assert {name: each["tier"] for name, each in found.items()} == {"tier1": 1, "tier2": 2, "disk2": 2}
    assert found["disk2"]["room"]["free_bytes"] > 0
    assert "disk2" in pacs("list")
    assert "within 365 days" in pacs("set", "disk2", "--scrub-days", 365)
    assert [line.count("365 days") for line in pacs("list").splitlines() if "disk" in line or "tier1" in line] == [0, 1]
    assert "within 90 days" in pacs("set", "disk2", "--scrub-days", 0)
    assert "365" not in pacs("list")
    shown = json.loads(pacs("show", "disk2", "--json"))
    assert shown["promise"]["fsyncs"] is True
    assert shown["holdings"] == {"copies": 0, "size_bytes": 0, "only_here": 0, "nowhere_else": 0}
    assert "holdings copies" in pacs("show", "disk2")
    assert "no volume disk9" in pacs("show", "disk9", code=9)
    verified = json.loads(pacs("verify", "--json"))
    assert set(verified) == set(found)
    assert all(finding["is_well"] for findings in verified.values() for finding in findings)
    assert "read on the far side" in pacs("verify", "disk2")
    (folder / "volume.json").rename(tmp_path / "away")
    assert "Not well: disk2" in pacs("verify", code=5)
    assert "There is no volume at" in pacs("list")
    (tmp_path / "away").rename(folder / "volume.json")
    assert "0 copies" in pacs("drain", "disk2")
    assert "in service again" in pacs("drain", "disk2", "--undo")
    pacs("drain", "disk2")
    assert "draining" in pacs("list")
    assert "may be taken away" in pacs("retire", "disk2")
    assert "disk2" not in pacs("list")
    assert "retired" in pacs("list", "--all")
    assert "retired" in pacs("verify", "disk2")
