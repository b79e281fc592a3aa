"""Receipts of what has arrived: each at once, none left out, whoever is storing at the moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from pacs.archive.receipts import ReceiptWriter
from pacs.cli.instance import Instance
from pacs.index import receipts as rows
from pacs.index import store as store_rows
from pacs.storage.receipts import Receipts
from pacs.storage.segments import lines_of
from tests.integration.test_rebuild import Archive, changed


@pytest.fixture
def archive(instance: Instance) -> Archive:
    return Archive(instance)


@pytest.fixture
def receipts(instance: Instance) -> Receipts:
    return Receipts(instance.settings.data)


def written(receipts: Receipts) -> list[dict[str, Any]]:
    return [line for segment in receipts.segments() for line in lines_of(segment.read_bytes())]


def stored(receipts: Receipts) -> list[str]:
    """The SOP Instance UIDs of all receipts, as often as they are written."""
    return [uid for line in written(receipts) for _sha256, uid, _at in line.get("stored", ())]


def test_what_a_receipt_says(archive: Archive, receipts: Receipts) -> None:
    ds = changed(1)
    archive.store(ds, character_set="ISO_IR 100")
    archive.store(ds)
    writer = ReceiptWriter(archive.instance.database, receipts)
    assert writer.run() == 2
    (line,) = written(receipts)
    with archive.instance.database.transaction() as connection:
        row = connection.execute("SELECT * FROM object").fetchone()
    assert row is not None
    assert line["study"] == ds.StudyInstanceUID
    assert line["stored"] == [[row["sha256"].hex(), ds.SOPInstanceUID, row["arrived_at"].isoformat()]]
    assert [each[3] for each in line["again"]] == ["same bytes"]
    assert (line["from"]["ae"], line["from"]["character_set"], line["from"]["closed"]) == ("CT1", "ISO_IR 100", None)
    assert writer.run() == 0
    archive.end_associations()
    assert writer.run() == 0
    assert written(receipts)[-1]["from"]["closed"] is not None, "its end is written when it ends"
    assert "Müller" not in receipts.segments()[0].read_text(), "no patient's data"


def test_an_object_that_is_being_stored_is_not_passed_over(archive: Archive, receipts: Receipts) -> None:
    """It has a lower key than one that is there already, and shows up later."""
    archive.store(changed(1, 1))
    writer = ReceiptWriter(archive.instance.database, receipts)
    writer.run()
    with psycopg.connect(archive.conninfo) as slow:
        slow.execute(
            "INSERT INTO object (tenant_id, series_key, sop_instance_uid, sop_class_uid, transfer_syntax_uid,"
            " content_date, content_time, sha256, size_bytes, is_current)"
            " SELECT tenant_id, series_key, '1.2.3', sop_class_uid, transfer_syntax_uid, '', '', sha256, 1, true"
            " FROM object"
        )
        archive.store(changed(1, 2))
        assert writer.run() == 1
        assert stored(receipts) == [changed(1, 1).SOPInstanceUID, changed(1, 2).SOPInstanceUID]
        slow.commit()
    assert writer.run() == 1
    assert stored(receipts)[-1] == "1.2.3"
    # One that begins anew writes no more than what is above the mark again.
    with archive.instance.database.transaction() as connection:
        mark = rows.marks(connection)["object_key"]
        above = len(rows.objects_after(connection, mark))
    assert ReceiptWriter(archive.instance.database, receipts).run() == above <= 3


def test_more_than_one_turn_takes(archive: Archive, receipts: Receipts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "OBJECTS_MAX", 2)
    for number in range(1, 6):
        archive.store(changed(1, number))
    with archive.instance.database.transaction() as connection:  # they came a while ago
        connection.execute("UPDATE object SET arrived_at = arrived_at - interval '1 minute'")
    assert ReceiptWriter(archive.instance.database, receipts).run() == 5
    assert len(set(stored(receipts))) == 5


def test_copies_go_on_from_one_another(archive: Archive, receipts: Receipts, tmp_path: Path) -> None:
    receipts.append([{"study": "1", "from": None, "stored": []}])
    (volume,) = archive.instance.volumes.tier(1)
    assert receipts.copy_to(volume) == 1
    assert receipts.copy_to(volume) == 0
    receipts.append([{"study": "2", "from": None, "stored": []}])
    assert receipts.copy_to(volume) == 1
    # Restored to an older state: what the volume knows more is taken over.
    (segment,) = receipts.segments()
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(lines[0] + b'{"study": "3"}\n')
    restored = Receipts(archive.data)
    restored.copy_to(volume)
    assert {line["study"] for line in written(restored)} == {"1", "2", "3"}


def test_a_torn_line_costs_only_itself(receipts: Receipts) -> None:
    receipts.append([{"study": "1"}])
    (segment,) = receipts.segments()
    with segment.open("ab") as file:
        file.write(b'{"study": "to')
    receipts.append([{"study": "2"}])
    assert [line["study"] for line in written(receipts)] == ["1", "2"]


def test_a_new_segment_when_one_is_full(receipts: Receipts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.storage.receipts.SEGMENT_SIZE_BYTES", 100)
    receipts.append({"study": f"{number:050d}"} for number in range(10))
    assert [line["study"] for line in written(receipts)] == [f"{number:050d}" for number in range(10)]
    assert len(receipts.segments()) == 5


def test_a_receivers_association_names_its_devices_character_set(instance: Instance) -> None:
    store_rows.open_association(instance.database, 1, "OLD", "192.0.2.1", "", "ISO_IR 100")
    with instance.database.transaction() as connection:
        row = connection.execute("SELECT default_character_set FROM association").fetchone()
    assert row == {"default_character_set": "ISO_IR 100"}
