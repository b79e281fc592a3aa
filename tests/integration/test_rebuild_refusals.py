"""What a rebuild does with bad input: refused and nothing touched, or left out and told; never lost, never guessed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from pacs.archive import devices
from pacs.archive.fixity import fixity
from pacs.archive.fixity_notes import take_in
from pacs.archive.rebuild_mark import MARK
from pacs.archive.reconcile import reconcile
from pacs.archive.repair import Repair
from pacs.checks import fixity as fixity_check
from pacs.checks.check import Subject
from pacs.cli.instance import open_instance
from pacs.index.damage import copies_out_of_service
from pacs.index.databases import Databases
from pacs.index.devices import Device
from pacs.storage.volume import IDENTITY_FILE
from tests.index_rows import all_rows
from tests.integration.test_rebuild import Archive, changed, rebuilt
from tests.unit.cli.conftest import Outcome, Run, run

__all__ = ["run"]


@dataclass
class Closed:
    """An archive of two studies, one on each tier, whose services are stopped."""

    data: Path
    conninfo: str
    run: Run

    @property
    def tier1(self) -> Path:
        return self.data / "tier1"

    @property
    def tier2(self) -> Path:
        return self.data / "tier2"

    def rebuild(self, *words: str) -> Outcome:
        return self.run("--data", self.data, "index", "rebuild", "--processes", "0", "--json", *words)

    def files(self, tier: Path) -> list[Path]:
        return sorted((tier / "objects").rglob("*.dcm"))

    def assert_untouched(self, before: dict[str, list[str]]) -> None:
        assert all_rows(self.conninfo) == before
        assert not (self.data / MARK).exists()
        with open_instance(self.data):
            pass  # services start


@pytest.fixture
def closed(new_instance: Callable[[], Path], run: Run) -> Iterator[Closed]:
    with open_instance(new_instance()) as opened:
        archive = Archive(opened)
        for number in (1, 2, 3):
            archive.store(changed(1, number))
        archive.end_associations()
        archive.move()
        for number in (1, 2, 3):
            archive.store(changed(2, number), "MR1")
        archive.end_associations()
        devices.add_device(opened.database, opened.journal, Device("ct", "CT1", "192.0.2.7", 104))
        archive.write_down()
        found = Closed(archive.data, archive.conninfo, run)
    yield found


def test_an_index_that_holds_objects_is_not_replaced_unasked(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    refused = closed.rebuild()
    assert refused.code == 2
    assert "--replace" in refused.err
    closed.assert_untouched(before)


def test_a_replaced_index_is_kept_and_dropped_by_a_person(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    kept = json.loads(closed.rebuild("--replace").out)["kept"]
    assert all_rows(Databases(closed.conninfo).conninfo_of(kept)) == before
    assert kept in closed.run("--data", closed.data, "index", "list").out
    assert closed.run("--data", closed.data, "index", "drop", "postgres").code == 9
    for name in Databases(closed.conninfo).replaced():
        assert closed.run("--data", closed.data, "index", "drop", name).code == 0
    assert "None" in closed.run("--data", closed.data, "index", "list").out


def test_services_at_work_are_a_refusal(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    with psycopg.connect(closed.conninfo, application_name="pacs worker"):
        refused = closed.rebuild("--replace")
    assert refused.code == 11
    assert "pacs worker" in refused.err
    closed.assert_untouched(before)


def test_nothing_starts_while_a_rebuild_is_unfinished(closed: Closed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_rows(closed.conninfo)
    with monkeypatch.context() as patched:
        patched.setattr("pacs.archive.rebuild.Rebuild._finish", _interrupted)
        with pytest.raises(RuntimeError):
            closed.rebuild("--replace")
    refused = closed.run("--data", closed.data, "study", "list")
    assert refused.code == 11
    assert "rebuild" in refused.err
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        psycopg.connect(closed.conninfo)
    assert closed.rebuild("--trust-names").code == 2, "it was told something else"
    # Given up: the index is what it was.
    assert closed.run("--data", closed.data, "index", "rebuild", "--abandon").code == 0
    closed.assert_untouched(before)


def _interrupted(*_words: object) -> None:
    raise RuntimeError


def test_an_empty_database_gets_an_index(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    databases = Databases(closed.conninfo)
    databases.drop(databases.name)
    assert closed.rebuild().code == 0
    assert all_rows(closed.conninfo) == before


def test_another_appliances_volume_is_refused(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    identity = json.loads((closed.tier2 / IDENTITY_FILE).read_text())
    identity["appliance_id"] = "00000000-0000-4000-8000-000000000001"
    ours = (closed.tier2 / IDENTITY_FILE).read_text()
    (closed.tier2 / IDENTITY_FILE).write_text(json.dumps(identity))
    refused = closed.rebuild("--replace")
    assert refused.code == 5
    assert "another" in refused.err or "belongs to appliance" in refused.err
    (closed.tier2 / IDENTITY_FILE).write_text(ours)
    closed.assert_untouched(before)


def test_a_missing_volume_is_named_and_can_be_left_out(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    away = closed.data / "away"
    closed.tier2.rename(away)
    closed.tier2.mkdir()  # an empty mount point
    refused = closed.rebuild("--replace")
    assert refused.code == 5
    assert "tier2" in refused.err
    assert list(closed.tier2.iterdir()) == [], "no new volume takes its place"
    done = closed.rebuild("--replace", "--without", "tier2")
    assert done.code == 10
    told = json.loads(done.out)
    assert (told["objects"], told["missing"]) == (3, 3)
    study = changed(1).StudyInstanceUID
    assert {row["study_instance_uid"] for row in told["missing_objects"]} == {study}
    assert {row["calling_ae"] for row in told["missing_objects"]} == {"CT1"}
    # It is back: all is as it was.
    closed.tier2.rmdir()
    away.rename(closed.tier2)
    assert rebuilt(closed.run, closed.data)["missing"] == 0
    assert all_rows(closed.conninfo) == before


def test_damaged_and_foreign_files_are_left_out_and_named(closed: Closed) -> None:
    flipped, cut, _whole = closed.files(closed.tier1)
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-2])
    foreign = flipped.with_name("holiday.jpg")
    foreign.write_bytes(b"not an object")
    (closed.tier1 / "objects" / "notes.txt").write_text("reconciliation's")
    (closed.tier1 / "quarantine").mkdir()
    shutil.copy(_whole, closed.tier1 / "quarantine" / "1234-x.dcm")
    done = closed.rebuild("--replace")
    assert done.code == 10
    told = json.loads(done.out)
    assert told["objects"] == 4
    assert {Path(row["path"]).name for row in told["left_out_files"]} == {flipped.name, cut.name, foreign.name}
    assert told["missing"] == 2, "they came once: what to send again is told"
    assert sorted(path.name for path in closed.files(closed.tier1)) == sorted([flipped.name, cut.name, _whole.name])


def test_a_second_good_copy_makes_up_for_a_bad_one(closed: Closed) -> None:
    on_tier_2 = closed.files(closed.tier2)[0]
    beside = closed.tier1 / on_tier_2.relative_to(closed.tier2)
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_bytes(on_tier_2.read_bytes()[:-1] + b"?")
    done = closed.rebuild("--replace")
    assert (done.code, json.loads(done.out)["missing"], json.loads(done.out)["left_out"]) == (10, 0, 1)


def test_one_object_on_two_volumes_has_two_copies(closed: Closed) -> None:
    for path in closed.files(closed.tier2):
        beside = closed.tier1 / path.relative_to(closed.tier2)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, beside)
        shutil.copy(path, beside.with_name(f"{path.name.partition('-')[0]}-{'0' * 12}.dcm"))  # and one too many
    told = rebuilt(closed.run, closed.data)
    assert (told["objects"], told["copies"], told["spare"], told["left_out"]) == (6, 9, 3, 0)


def test_trusted_names_are_not_compared(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    flipped = closed.files(closed.tier1)[0]
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    told = rebuilt(closed.run, closed.data, "--trust-names")
    assert told["trusted_names"] is True
    assert all_rows(closed.conninfo) == before


def test_what_was_known_of_reading_and_damage_is_known_again(closed: Closed) -> None:
    """Names are trusted, and yet what is bad stays bad; what is gone and has another copy is made anew."""
    gone = closed.files(closed.tier2)[0]
    beside = closed.tier1 / gone.relative_to(closed.tier2)
    beside.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(gone, beside)
    assert rebuilt(closed.run, closed.data)["copies"] == 7
    flipped = next(path for path in closed.files(closed.tier1) if path != beside)
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    gone.unlink()
    assert closed.run("--data", closed.data, "scrub", "run", "--all").code == 10
    with open_instance(closed.data) as instance:
        before = fixity(instance.database, instance.volumes, timedelta(days=90))
        lost = sorted((row["volume"], row["state"]) for row in copies_out_of_service(instance.database))
    assert lost == [("tier1", "bad"), ("tier2", "missing")]
    assert rebuilt(closed.run, closed.data, "--trust-names")["known_lost"] == 2
    with open_instance(closed.data) as instance:
        after = fixity(instance.database, instance.volumes, timedelta(days=90))
        assert [each.since for each in after.volumes] == [each.since for each in before.volumes]
        assert sorted((row["volume"], row["state"]) for row in copies_out_of_service(instance.database)) == lost
        assert fixity_check.run(Subject(instance.settings, instance.database, instance.volumes)).severity == "ok"
        assert Repair(instance.database, instance.volumes.by_id).run().repaired == 1
        assert [row["state"] for row in copies_out_of_service(instance.database)] == ["bad"]
    # What the index knows counts more than a note on the volume, which is older.
    assert closed.run("--data", closed.data, "scrub", "run", "--all").code == 0
    with open_instance(closed.data) as instance:
        assert [row["state"] for row in copies_out_of_service(instance.database)] == ["bad"]


_LOST = (
    b'{"format": 1, "folders": {}, "lost": [{"sop_instance_uid": "1", "sha256": "00", "path": "%s", "state": "%s"}]}'
)


def test_notes_that_cannot_be_used_are_as_if_there_were_none(closed: Closed) -> None:
    contents = (
        b"", b"[]", b'{"format": 2}', b'{"format": 1, "folders": [], "lost": []}',
        b'{"format": 1, "folders": {"x": 1}, "lost": []}', _LOST % (b"objects/x", b"gone"), _LOST % (b"../x", b"bad"),
    )  # fmt: skip
    before = all_rows(closed.conninfo)
    with open_instance(closed.data) as instance:
        for content in contents:
            (closed.tier1 / "fixity.json").write_bytes(content)
            assert take_in(instance.database, instance.volumes.own()) == 0
        assert fixity(instance.database, instance.volumes, timedelta(days=90)).since is None
    assert all_rows(closed.conninfo) == before


def test_a_volume_that_was_left_out_and_is_back_keeps_its_second_copies(closed: Closed) -> None:
    for path in closed.files(closed.tier1):
        beside = closed.tier2 / path.relative_to(closed.tier1)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, beside)
    assert rebuilt(closed.run, closed.data)["copies"] == 9
    before = all_rows(closed.conninfo)["copy"]
    away = closed.data / "away"
    closed.tier2.rename(away)
    assert closed.rebuild("--replace", "--without", "tier2").code == 10
    away.rename(closed.tier2)
    with open_instance(closed.data) as instance:
        found = reconcile(instance.database, instance.volumes.all(), 0)
    assert (found.indexed, found.quarantined, found.missing) == (3, 0, 0)
    assert all_rows(closed.conninfo)["copy"] == before


# --- journal and receipts ---------------------------------------------------------------------------------------------


def test_an_event_of_a_newer_version_is_refused(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    (segment,) = (closed.data / "journal").glob("*.jsonl")
    ours = segment.read_bytes()
    for line in (
        {"at": "2030-01-01T00:00:00+00:00", "what": "study teleport", "study": "1.2"},
        {"at": "2030-01-01T00:00:00+00:00", "what": "device add", "name": "x", "warp_factor": 9},
    ):
        segment.write_bytes(ours + json.dumps(line).encode() + b"\n")
        refused = closed.rebuild("--replace")
        assert refused.code == 6, refused.err
        segment.write_bytes(ours)
        closed.assert_untouched(before)


def test_a_torn_line_and_copies_that_are_behind(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    (segment,) = (closed.data / "journal").glob("*.jsonl")
    copy = closed.tier2 / "journal" / segment.name
    copy.write_bytes(segment.read_bytes()[:40])  # older, and torn
    with segment.open("ab") as file:
        file.write(b'{"at": "2026-11-22T00:00:00+00:00", "what": "devi')  # torn by a loss of power
    rebuilt(closed.run, closed.data)
    assert all_rows(closed.conninfo) == before


def test_without_the_state_volumes_journal_and_receipts_those_of_the_volumes_count(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    (segment,) = (closed.data / "journal").glob("*.jsonl")
    ours = segment.read_bytes()
    shutil.rmtree(closed.data / "journal")
    shutil.rmtree(closed.data / "receipts")
    (closed.tier1 / "journal" / segment.name).write_bytes(ours[: len(ours) // 2])
    rebuilt(closed.run, closed.data)
    assert all_rows(closed.conninfo) == before
    assert segment.read_bytes() == ours, "the journal goes on from the longest copy"


def test_what_a_later_copy_of_the_journal_says_of_a_volume_counts(closed: Closed, tmp_path: Path) -> None:
    place = tmp_path / "extra"
    place.mkdir()
    words = ("--data", closed.data, "volume")
    assert closed.run(*words, "add", "extra", place, "--tier", "2", "--on-system-disk").code == 0
    (segment,) = (closed.data / "journal").glob("*.jsonl")
    earlier = segment.read_bytes()
    assert closed.run(*words, "drain", "extra").code == 0
    assert closed.run(*words, "set", "extra", "--scrub-days", "7").code == 0
    before = all_rows(closed.conninfo)
    assert any("draining" in row for row in before["volume"])
    shutil.copy(segment, closed.tier1 / "journal" / segment.name)
    segment.write_bytes(earlier)
    rebuilt(closed.run, closed.data)
    assert all_rows(closed.conninfo) == before


def test_journals_that_contradict_are_a_persons_to_judge(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    (segment,) = (closed.data / "journal").glob("*.jsonl")
    copy = closed.tier1 / "journal" / segment.name
    copy.write_bytes(copy.read_bytes().replace(b"192.0.2.7", b"192.0.2.8"))
    refused = closed.rebuild("--replace")
    assert refused.code == 5
    assert "--journal" in refused.err
    closed.assert_untouched(before)
    rebuilt(closed.run, closed.data, "--journal", str(closed.tier2 / "journal"))
    assert all_rows(closed.conninfo) == before


def test_without_receipts_the_files_times_tell_the_order(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    for folder in (closed.data, closed.tier1, closed.tier2):
        shutil.rmtree(folder / "receipts")
    told = rebuilt(closed.run, closed.data)
    assert told["unreceipted"] == 6
    after = all_rows(closed.conninfo)
    for table in ("patient", "study", "series", "copy", "device", "stored_syntax"):
        assert after[table] == before[table], table
    # From then on they have receipts: the next rebuild finds the same.
    assert rebuilt(closed.run, closed.data)["unreceipted"] == 0
    assert all_rows(closed.conninfo) == after


def test_a_damaged_receipt_is_a_refusal(closed: Closed) -> None:
    before = all_rows(closed.conninfo)
    segment = next((closed.data / "receipts").glob("*.jsonl"))
    ours = segment.read_bytes()
    segment.write_bytes(ours + b'{"study": "1.2", "from": null, "stored": [["zz"]]}\n')
    assert closed.rebuild("--replace").code != 0
    segment.write_bytes(ours)
    assert closed.rebuild("--abandon").code == 0
    closed.assert_untouched(before)
