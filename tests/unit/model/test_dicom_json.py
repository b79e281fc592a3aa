"""DICOM JSON of the corpus against what pydicom makes of it, and the frames of its images against pydicom's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.encaps import generate_frames

from pacs.errors import PacsError
from pacs.model.dataset import DEFLATED, EXPLICIT_VR_LITTLE_ENDIAN
from pacs.model.dicom_json import Window, describe, json_value, text_element
from pacs.model.frames import frames_of
from pacs.model.native_xml import native_xml
from pacs.model.pieces import inflated
from tests.peer import read_raw

_SIZE_BYTES_MAX = 30_000_000


def test_values() -> None:
    assert text_element("PN", ["Yamada^Tarou=山田^太郎"]) == {
        "vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}],
    }  # fmt: skip
    assert text_element("DS", ["1.50", "2", "x", "1e400", ""]) == {"vr": "DS", "Value": [1.5, 2, "x", "1e400"]}
    assert text_element("IS", ["-7", "1A"]) == {"vr": "IS", "Value": [-7, "1A"]}
    assert text_element("LO", ["a", "", "b"]) == {"vr": "LO", "Value": ["a", None, "b"]}
    assert text_element("CS", [""]) == {"vr": "CS"}
    assert json_value("AT", b"\x10\x00\x20\x00", "<", []) == {"vr": "AT", "Value": ["00100020"]}
    assert json_value("US", b"\x01\x00\x02\x00", ">", []) == {"vr": "US", "Value": [256, 512]}
    assert json_value("OW", b"\x01\x02", ">", []) == {"vr": "OW", "InlineBinary": "AgE="}
    assert json_value("FL", b"\x00\x00\xc0\x7f", "<", []) == {"vr": "FL", "Value": ["NaN"]}


def agree(ours: dict[str, Any], theirs: dict[str, Any]) -> int:
    """Compare what both have, value by value; return how many elements agree."""
    count = 0
    for tag in ours.keys() & theirs.keys() - {"00080005"}:
        ours_of, theirs_of = ours[tag], theirs[tag]
        if ours_of["vr"] != theirs_of["vr"] or "BulkDataURI" in ours_of or "BulkDataURI" in theirs_of:
            continue  # private elements, whose dictionary pydicom has; long values
        if ours_of["vr"] == "SQ":
            items = zip(ours_of.get("Value", []), theirs_of.get("Value", []), strict=False)
            count += sum(agree(one, other) for one, other in items)
        elif ours_of["vr"] in ("UI", "DA", "US", "SS", "FD", "DS", "AT", "OB"):
            values = [None if each == "" else each for each in theirs_of.get("Value", [])]
            assert ours_of.get("Value", []) == values, tag
            count += 1
    return count


@pytest.mark.long
def test_the_corpus_agrees_with_pydicom(shared_data: Path) -> None:
    elements = frames = 0
    for path in sorted(shared_data.rglob("*")):
        if not path.is_file() or path.stat().st_size > _SIZE_BYTES_MAX:
            continue
        try:
            raw = read_raw(path)
            data, syntax = raw.dataset, raw.transfer_syntax_uid
            if syntax in DEFLATED:
                data, syntax = b"".join(inflated([data])), EXPLICIT_VR_LITTLE_ENDIAN
            described = describe(Window.of(data), syntax)
        except (PacsError, ValueError, EOFError, pydicom.errors.InvalidDicomError):
            continue  # broken ones, which the store refuses
        json.dumps(described.json, allow_nan=False)
        native_xml(described.json)
        try:
            ds = pydicom.dcmread(path, force=True)
            theirs = ds.to_json_dict(
                bulk_data_threshold=1024, bulk_data_element_handler=lambda _element: "x", suppress_invalid_tags=True
            )
        except Exception:  # pydicom raises what it likes
            continue
        elements += agree(described.json, theirs)
        located = described.bulk.get("7FE00010")
        if located is None or not located.is_encapsulated:
            continue
        try:
            found = frames_of(described, Window.of(data))
        except PacsError:
            continue
        tables = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths) if "ExtendedOffsetTable" in ds else None
        expected = list(generate_frames(ds.PixelData, number_of_frames=len(found.pieces), extended_offsets=tables))
        assert [b"".join(data[at : at + size] for at, size in pieces) for pieces in found.pieces] == expected, path
        frames += len(expected)
    assert elements > 5000
    assert frames > 150
