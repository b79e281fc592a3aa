"""The index rebuilt from the volumes alone: row for row what it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from pacs.archive import conflicts, devices, tiering, tokens
from pacs.archive.move import Mover
from pacs.archive.move_group import Pass
from pacs.archive.receipts import ReceiptWriter
from pacs.archive.store import Announced, StoreSession
from pacs.archive.volume_changes import VolumeChanges
from pacs.cli.instance import Instance, open_instance
from pacs.index import conflicts as conflict_rows
from pacs.index import store as store_rows
from pacs.index.conflicts import Decision
from pacs.index.devices import Device
from pacs.model.tier_rules import Rule
from pacs.storage.receipts import Receipts
from tests.index_rows import all_rows
from tests.synthetic import ct_dataset, encode
from tests.unit.cli.conftest import Run, run

__all__ = ["run"]


@dataclass
class Archive:
    """An instance on which things happen; closed and looked at afterwards."""

    instance: Instance
    associations: dict[str, int] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.instance.settings.data

    @property
    def conninfo(self) -> str:
        return self.instance.settings.conninfo

    def store(self, ds: Dataset, ae: str = "CT1", syntax: str | None = None, character_set: str = "") -> str:
        """Store a data set as an association of a device's brings it."""
        if ae not in self.associations:
            self.associations[ae] = store_rows.open_association(
                self.instance.database, 1, ae, "192.0.2.7", "", character_set
            )
        made = encode(ds, syntax) if syntax else encode(ds)
        named = (made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
        announced = Announced(*named, self.associations[ae], character_set)
        arriving = self.instance.store().begin(announced, StoreSession())
        arriving.write(memoryview(made.dataset))
        return arriving.finish()

    def end_associations(self) -> None:
        for key in self.associations.values():
            store_rows.close_association(self.instance.database, key)
        self.associations.clear()

    def decide(self, kind: str, decision: Decision) -> None:
        found = [row for row in conflict_rows.list_conflicts(self.instance.database) if row["kind"] == kind]
        instance = self.instance
        conflicts.resolve(
            instance.database, instance.journal, instance.volumes, instance.store(), found[0]["conflict_key"], decision
        )

    def move(self) -> None:
        mover = Mover(self.instance.database, self.instance.volumes, 0)
        mover.move_down(0, Pass())
        mover.remove_left(-1)
        mover.close()

    def write_down(self) -> None:
        """What the worker does every minute."""
        receipts = Receipts(self.data)
        ReceiptWriter(self.instance.database, receipts).run()
        for volume in self.instance.volumes.all():
            receipts.copy_to(volume)
            self.instance.journal.copy_to(volume)


@pytest.fixture
def open_archive(new_instance: Callable[[], Path]) -> Iterator[Archive]:
    with open_instance(new_instance()) as opened:
        yield Archive(opened)


def changed(seed: int, number: int = 1, series: int = 1, **values: object) -> Dataset:
    ds = ct_dataset(seed, number, 16, 16, series)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def live(archive: Archive) -> None:
    """Everything that makes a row: all kinds of conflicts and decisions, repetitions, quirks, devices, two tiers."""
    instance, journal = archive.instance, archive.instance.journal
    VolumeChanges(instance.database, journal, archive.data, instance.volumes).set_scrub_days("tier2", 365)
    devices.add_device(instance.database, journal, Device("ct", "CT1", "192.0.2.7", 104))
    devices.add_device(
        instance.database, journal, Device("old", "OLD", "192.0.2.8", 104, networks=("198.51.100.0/24",))
    )
    ct = devices.change_device(instance.database, journal, Device("ct", "CT1", "192.0.2.9", 11112, aliases=("CT1B",)))
    devices.add_device(instance.database, journal, replace(ct, name="gone", ae_title="GONE", aliases=()))
    devices.remove_device(instance.database, journal, "gone")
    tokens.add_token(instance.database, journal, "viewer", ["read"], ["10.0.0.0/8"], days=30)
    tokens.add_token(instance.database, journal, "gone", ["read", "store"])
    tokens.remove_token(instance.database, journal, "gone")
    for number in range(1, 6):
        assert archive.store(changed(1, number)) == "stored"
        assert archive.store(changed(2, number, series=1 + number % 2), "MR1") == "stored"
    quirky = changed(3, PatientName=b"M\xfcller^\xc4nne")
    del quirky.SpecificCharacterSet
    assert archive.store(quirky, "OLD", character_set="ISO_IR 100") == "stored"
    assert archive.store(changed(1, 1)) == "duplicate"
    assert archive.store(changed(1, 2), "MR1", ImplicitVRLittleEndian) == "same content"
    archive.end_associations()
    archive.write_down()
    archive.move()
    # Other content under known UIDs; the second is decided for, the third gets a UID of its own.
    for number in (1, 2, 3):
        assert archive.store(changed(1, number, SeriesDescription="another")) == "conflict"
    archive.decide("content", "replace")
    archive.decide("content", "new-uids")
    assert archive.store(changed(1, 1, SeriesDescription="a third")) == "conflict"
    assert archive.store(changed(2, 1, series=2, SOPInstanceUID=changed(2, 2).SOPInstanceUID), "MR1") == "conflict"
    # A study of another patient: decided for, then one that isn't.
    assert archive.store(changed(4, 1)) == "stored"
    assert archive.store(changed(4, 1, series=2, PatientID="P4other", PatientName="Someone^Else")) == "stored"
    archive.decide("study", "replace")
    assert archive.store(changed(4, 1, series=3, PatientID="P4third")) == "stored"
    # A name that is replaced, then the first part of the new one comes, which is no conflict only after that.
    assert archive.store(changed(5, 1)) == "stored"
    assert archive.store(changed(5, 1, series=2, PatientName="Yamada^Tarou=山田^太郎")) == "stored"
    archive.decide("patient", "replace")
    assert archive.store(changed(5, 1, series=3, PatientName="Yamada^Tarou")) == "stored"
    assert archive.store(changed(5, 1, series=4, PatientName="Quite^Different")) == "stored"
    # One series in two studies.
    assert archive.store(changed(6, 1)) == "stored"
    assert archive.store(changed(7, 1, SeriesInstanceUID=changed(6).SeriesInstanceUID)) == "stored"
    archive.decide("series", "keep")
    # Patients without a usable id.
    assert archive.store(changed(8, 1, PatientID="UNKNOWN")) == "stored"
    assert archive.store(changed(9, 1, PatientID="UNKNOWN")) == "stored"
    # What rules and people say of tiers.
    tiering.add_rule(instance.database, journal, instance.settings, Rule("old", 1, 2, age_days=90, modalities=("CT",)))
    tiering.add_rule(instance.database, journal, instance.settings, Rule("gone", 1, 2, age_days=9))
    tiering.remove_rule(instance.database, journal, "gone")
    for seed in (1, 2):
        tiering.pin(instance.database, journal, changed(seed).StudyInstanceUID, "for teaching")
    tiering.unpin(instance.database, journal, changed(2).StudyInstanceUID)
    archive.end_associations()
    archive.write_down()


def rebuilt(run: Run, data: Path, *words: str, code: int = 0) -> dict[str, object]:
    outcome = run("--data", data, "index", "rebuild", "--replace", "--processes", "0", "--json", *words)
    assert outcome.code == code, outcome.err
    found: dict[str, object] = json.loads(outcome.out)
    return found


def test_row_for_row(new_instance: Callable[[], Path], run: Run) -> None:
    with open_instance(new_instance()) as opened:
        archive = Archive(opened)
        live(archive)
        data, conninfo = archive.data, archive.conninfo
    before = all_rows(conninfo)
    assert all(before.values()), f"every table has rows: {[name for name, rows in before.items() if not rows]}"
    told = rebuilt(run, data)
    after = all_rows(conninfo)
    for table, rows in before.items():
        assert after[table] == rows, table
    assert (told["unreceipted"], told["missing"], told["left_out"], told["problems"]) == (0, 0, 0, [])
    assert told["objects"] == len(before["object"])
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT FROM pg_namespace WHERE nspname = 'rebuild'").fetchone() is None
    # What was rebuilt is an index like any other: it is rebuilt again, and objects arrive in it.
    rebuilt(run, data)
    assert all_rows(conninfo) == after
    with open_instance(data) as opened:
        again = Archive(opened)
        assert again.store(changed(1, 1)) == "duplicate"
        assert again.store(changed(20, 1)) == "stored"


def test_the_order_of_arrival_counts_and_not_the_day_in_the_path(new_instance: Callable[[], Path], run: Run) -> None:
    """An object that got its name just before midnight, and its row just after another had, came second."""
    with open_instance(new_instance()) as opened:
        archive = Archive(opened)
        archive.store(changed(1, PatientID="P", PatientName="First^Name"))
        archive.store(changed(2, PatientID="P", PatientName="Second^Name"))
        with opened.database.transaction() as connection:
            connection.execute(
                "UPDATE object SET arrived_at = date_trunc('day', now()) + make_interval(secs => object_key)"
            )
            second = connection.execute("SELECT path FROM copy ORDER BY copy_key DESC LIMIT 1").fetchone()
            assert second is not None
            was = Path(second["path"])
            study, day = was.parent, was.parent.parent
            before = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y/%m/%d")
            becomes = day.parents[2] / before / study.name / was.name
            connection.execute("UPDATE copy SET path = %s WHERE path = %s", (str(becomes), str(was)))
        (volume,) = opened.volumes.tier(1)
        (volume.root / becomes).parent.mkdir(parents=True)
        (volume.root / was).rename(volume.root / becomes)
        archive.end_associations()
        archive.write_down()
        data, conninfo = archive.data, archive.conninfo
    before_rows = all_rows(conninfo)
    assert "First^Name" in before_rows["patient"][0]
    rebuilt(run, data)
    assert all_rows(conninfo) == before_rows
