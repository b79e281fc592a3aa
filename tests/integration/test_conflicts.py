"""What comes twice: the same bytes, the same content in another encoding, other content under one UID."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.index.runs import totals
from tests.serving import stored_bytes
from tests.synthetic import SyntheticObject, ct_dataset, encode


def _arrival(made: SyntheticObject) -> Arrival:
    return Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)


def _files(instance: Instance) -> list[Path]:
    return sorted((instance.volumes.tier(1)[0].root / "objects").rglob("*.dcm"))


def test_the_same_bytes_again_keep_one_file(instance: Instance) -> None:
    arrival = _arrival(encode(ct_dataset(1)))
    store = instance.store()
    assert [store.store(arrival) for _ in range(3)] == ["stored", "duplicate", "duplicate"]
    assert len(_files(instance)) == 1
    with instance.database.transaction() as connection:
        kinds = connection.execute("SELECT kind, count(*) FROM duplicate GROUP BY kind").fetchall()
    assert kinds == [{"kind": "same bytes", "count": 2}]


def test_equal_data_sets_make_equal_files(instance: Instance) -> None:
    made = encode(ct_dataset(2))
    instance.store().store(_arrival(made))
    (path,) = _files(instance)
    assert path.read_bytes().endswith(made.dataset)
    sha256 = path.name.split("-")[0]
    with instance.database.transaction() as connection:
        row = connection.execute("SELECT encode(sha256, 'hex') AS sha256 FROM object").fetchone()
    assert row is not None and row["sha256"] == sha256


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_the_same_content_in_another_encoding_keeps_the_first(instance: Instance, syntax: str) -> None:
    store = instance.store()
    assert store.store(_arrival(encode(ct_dataset(3)))) == "stored"
    ds = ct_dataset(3)
    if syntax == RLELossless:
        ds.file_meta = _meta()
        ds.compress(RLELossless, generate_instance_uid=False)
    assert store.store(_arrival(encode(ds, syntax))) == "same content"
    assert len(_files(instance)) == 1
    assert totals(instance.database)["conflicts"] == 0


def _meta():
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def test_other_content_under_one_uid_is_kept_and_raised(instance: Instance) -> None:
    store = instance.store()
    first, second = ct_dataset(4), ct_dataset(4)
    second.StudyDescription = "Something else"
    assert store.store(_arrival(encode(first))) == "stored"
    assert store.store(_arrival(encode(second))) == "conflict"
    assert store.store(_arrival(encode(second))) == "duplicate"
    assert len(_files(instance)) == 2
    assert totals(instance.database)["conflicts"] == 1
    wanted = instance.retrieve().wanted({"StudyInstanceUID": [str(first.StudyInstanceUID)]})
    assert len(wanted) == 1, "the first stays current"
    assert stored_bytes(instance.retrieve(), wanted[0]) == encode(first).dataset


def test_one_changed_pixel_is_a_conflict_in_any_encoding(instance: Instance) -> None:
    store = instance.store()
    other = ct_dataset(5)
    other[0x7FE00010].value = b"\xff\x0f" + other[0x7FE00010].value[2:]
    assert store.store(_arrival(encode(ct_dataset(5)))) == "stored"
    assert store.store(_arrival(encode(other, ImplicitVRLittleEndian))) == "conflict"


def test_many_at_once_make_one_row_each(instance: Instance) -> None:
    store = instance.store()
    same = [_arrival(encode(ct_dataset(6)))] * 8
    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(store.store, same))
    assert outcomes == ["duplicate"] * 7 + ["stored"]
    assert len(_files(instance)) == 1
    with instance.database.transaction() as connection:
        for table in ("patient", "study", "series", "object", "copy"):
            row = connection.execute(f"SELECT count(*) AS n FROM {table}".encode()).fetchone()
            assert row == {"n": 1}, table


def test_different_contents_at_once_are_all_kept(instance: Instance) -> None:
    store = instance.store()
    variants = []
    for number in range(6):
        ds = ct_dataset(7)
        ds.StudyDescription = f"Variant {number}"
        variants.append(_arrival(encode(ds)))
    with ThreadPoolExecutor(6) as pool:
        outcomes = sorted(pool.map(store.store, variants))
    assert outcomes == ["conflict"] * 5 + ["stored"]
    assert len(_files(instance)) == 6
    assert totals(instance.database)["conflicts"] == 5


def test_a_lost_object_is_healed_by_its_second_sending(instance: Instance) -> None:
    store = instance.store()
    arrival = _arrival(encode(ct_dataset(8)))
    store.store(arrival)
    with instance.database.transaction() as connection:
        connection.execute("UPDATE copy SET state = 'missing'")
    assert store.store(arrival) == "stored"
    with instance.database.transaction() as connection:
        assert connection.execute("SELECT state FROM copy").fetchall() == [{"state": "good"}]
