"""The start of a stored file: the same for the same object, and readable by others."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.errors import CannotUnderstand
from pacs.model.part10 import START_BYTES_MAX, FileMeta, decode_file_meta, encode_file_meta
from pacs.model.uids import IMPLEMENTATION_CLASS_UID, is_uid
from tests.synthetic import ct_dataset, encode

uids = st.from_regex(r"\A[0-9]{1,10}(\.[0-9]{1,10}){0,5}\Z").filter(lambda uid: len(uid) <= 64)


@given(uids, uids, uids)
def test_what_was_written_is_read(sop_class: str, sop_instance: str, syntax: str) -> None:
    start = encode_file_meta(sop_class, sop_instance, syntax)
    assert start == encode_file_meta(sop_class, sop_instance, syntax)
    assert decode_file_meta(start) == FileMeta(sop_class, sop_instance, syntax, len(start))
    assert len(start) <= START_BYTES_MAX


def test_the_longest_start_fits_what_readers_read() -> None:
    start = encode_file_meta("1" * 64, "2" * 64, "3" * 64)
    assert decode_file_meta((start + bytes(5000))[:START_BYTES_MAX]).dataset_offset == len(start)


def test_the_bytes_never_change() -> None:
    """Equal objects make equal files, today and in ten years: these bytes are stored in archives."""
    start = encode_file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")
    assert is_uid(IMPLEMENTATION_CLASS_UID)
    assert hashlib.sha256(start).hexdigest() == "ebc9f84de8279deac23f48de80fbe2bdef180381eb6813f1b2c240ed1c7a8d34"


def test_pydicom_reads_it() -> None:
    made = encode(ct_dataset(1))
    file = encode_file_meta(made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid) + made.dataset
    ds = pydicom.dcmread(BytesIO(file))
    pydicom.dataset.validate_file_meta(ds.file_meta, enforce_standard=True)
    assert ds == pydicom.dcmread(BytesIO(made.part10))
    assert ds.file_meta.FileMetaInformationGroupLength == len(file) - len(made.dataset) - 144


def test_dcmtk_reads_it(tmp_path: Path) -> None:
    if not shutil.which("dcmftest"):
        pytest.skip("dcmtk is not installed")
    made = encode(ct_dataset(1))
    path = tmp_path / "a.dcm"
    path.write_bytes(
        encode_file_meta(made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid) + made.dataset
    )
    assert subprocess.run(["dcmftest", path], capture_output=True, text=True, check=True).stdout.startswith("yes")
    dump = subprocess.run(["dcmdump", path], capture_output=True, text=True, check=True)
    assert made.sop_instance_uid in dump.stdout
    assert not dump.stderr


def test_a_damaged_start_is_refused_at_every_byte() -> None:
    start = encode_file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")
    for size in range(len(start)):
        with pytest.raises(CannotUnderstand):
            decode_file_meta(start[:size])
    for at in range(len(start)):
        try:
            decode_file_meta(start[:at] + bytes([start[at] ^ 0xFF]) + start[at + 1 :])
        except CannotUnderstand:
            continue


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_prefix_raise_only_cannot_understand(tail: bytes) -> None:
    for start in (tail, bytes(128) + b"DICM" + tail):
        try:
            decode_file_meta(start)
        except CannotUnderstand:
            continue
