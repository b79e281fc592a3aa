"""What a retrieve asks of the index: objects and all their copies in one round trip."""

from __future__ import annotations

from pacs.index import movement, retrieve
from pacs.index import volumes as volume_rows
from pacs.index.database import Database
from tests.unit.index.rows import new_volume, record, store


def test_objects_below_an_entity(database: Database) -> None:
    volume = new_volume(database)
    for study in ("1.1", "1.2"):
        for number in (1, 2):
            store(
                database, volume,
                record(patient_id="P", study_instance_uid=study, series_instance_uid=f"{study}.{number}",
                       sop_instance_uid=f"{study}.{number}.1"),
            )  # fmt: skip

    def below(**unique_keys: list[str]) -> list[str]:
        return [row["sop_instance_uid"] for row in retrieve.objects_below(database, unique_keys)]

    assert below(StudyInstanceUID=["1.1"]) == ["1.1.1.1", "1.1.2.1"]
    assert below(StudyInstanceUID=["1.1", "1.2"], SeriesInstanceUID=["1.2.1"]) == ["1.2.1.1"]
    assert below(PatientID=["P"]) == ["1.1.1.1", "1.1.2.1", "1.2.1.1", "1.2.2.1"]
    assert below(PatientID=["P"], IssuerOfPatientID=["elsewhere"]) == []
    assert below(SOPInstanceUID=["1.1.1.1", "9"]) == ["1.1.1.1"]
    assert below(StudyInstanceUID=["1.%"]) == []


def test_copies_come_with_their_object_the_nearest_first(database: Database) -> None:
    near, far = new_volume(database), new_volume(database, tier=2)
    store(database, near, record())
    (row,) = retrieve.objects_below(database, {})
    key, (near_copy,), (near_path,) = row["object_key"], row["copy_keys"], row["paths"]
    assert row["volume_ids"] == [near]
    with database.transaction() as connection:
        volume_rows.add_copy(connection, key, far, "far.dcm")
    (row,) = retrieve.objects_below(database, {})
    assert (row["volume_ids"], row["paths"]) == ([near, far], [near_path, "far.dcm"])
    with database.transaction() as connection:
        assert movement.leave(connection, [key], [near], [near, far]) == 1
        assert retrieve.copies_of(connection, key)["volume_ids"] == [far, near], "one that leaves is the last resort"
        assert not retrieve.withdraw_copy(connection, near_copy, near_path, "missing"), "it is on its way out anyway"
        far_copy = retrieve.copies_of(connection, key)["copy_keys"][0]
        assert not retrieve.withdraw_copy(connection, far_copy, "another.dcm", "missing"), "it is another file by now"
        assert retrieve.withdraw_copy(connection, far_copy, "far.dcm", "missing")
        assert retrieve.copies_of(connection, key)["volume_ids"] == [near]
