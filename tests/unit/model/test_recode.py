"""Data sets re-encoded as they stream: the same values in other headers, and elements put in another's place."""

from __future__ import annotations

import contextlib
import itertools
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from pacs.errors import CannotUnderstand
from pacs.model import part10
from pacs.model.dataset import scan
from pacs.model.recode import Element, recode, recode_start
from tests.peer import read_raw
from tests.unit.model.encoding import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_BASELINE,
    UNDEFINED,
    delimiter,
    element,
    identity,
    item,
    undefined,
)

NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
FILES = (
    "CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd_big_endian.dcm",
    "image_dfl.dcm", "ExplVR_BigEnd.dcm", "rtplan.dcm", "waveform_ecg.dcm", "test-SR.dcm", "reportsi.dcm",
    "liver_1frame.dcm", "liver_expb_1frame.dcm", "rtdose.dcm", "JPEG-lossy.dcm",
)  # fmt: skip


def again(data: bytes, source: str, target: str, changes: dict[int, Element | None] | None = None) -> bytes:
    """Re-encoded, its bytes coming in pieces that cut headers."""
    pieces = (data[at : at + 37] for at in range(0, len(data), 37))
    return b"".join(recode(pieces, source, target, changes))


def read(data: bytes, syntax: str) -> pydicom.Dataset:
    start = part10.encode_file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", syntax)
    return pydicom.dcmread(BytesIO(start + data))


def words(ds: pydicom.Dataset) -> dict[str, object]:
    """What a data set says, as pydicom reads it; without what has a representation in one encoding only."""
    return {
        str(each.tag): words_of(each)
        for each in ds
        if each.tag.element and not each.tag.is_private and each.keyword not in ("PixelData", "DataSetTrailingPadding")
    }


def words_of(each: pydicom.DataElement) -> object:
    return [words(one) for one in each.value] if each.VR == "SQ" else str(each.value)


@pytest.mark.parametrize("target", NATIVE)
@pytest.mark.parametrize("name", FILES)
def test_every_word_survives(name: str, target: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    raw = read_raw(Path(path))
    if raw.transfer_syntax_uid not in NATIVE or (name == "rtdose.dcm" and target == BIG_ENDIAN):
        with pytest.raises(CannotUnderstand) if target in (IMPLICIT, BIG_ENDIAN) else contextlib.nullcontext():
            again(raw.dataset, raw.transfer_syntax_uid, target)
        return
    given = again(raw.dataset, raw.transfer_syntax_uid, target)
    pixels = [
        read(*each).pixel_array
        for each in ((raw.dataset, raw.transfer_syntax_uid), (given, target))
        if _has_pixels(*each)
    ]
    assert len(pixels) in (0, 2) and all(np.array_equal(pixels[0], each) for each in pixels)
    scan(given, target, ())  # it is whole
    before, after = read(raw.dataset, raw.transfer_syntax_uid), read(given, target)
    if {raw.transfer_syntax_uid, target} & {BIG_ENDIAN}:  # words that pydicom keeps as bytes are turned round
        for ds in (before, after):
            ds.walk(lambda ds, each: each.VR in ("OW", "OF", "OB or OW") and ds.pop(each.tag), recursive=True)
    assert words(after) == words(before)


def _has_pixels(data: bytes, syntax: str) -> bool:
    return "PixelData" in read(data, syntax)


def test_there_and_back_gives_the_same_bytes() -> None:
    """Of a data set as most devices write it; only lengths of sequences become undefined."""
    data = identity() + element(0x00280010, "US", b"\x01\x02") + element(0x00281052, "DS", b"1.50")
    data += undefined(0x00400275, "SQ", item(element(0x00400007, "LO", b"a\\b "), undefined=True))
    data += element(0x7FE00010, "OW", bytes(range(200)))
    for steps in itertools.permutations(NATIVE, 3):
        found, at = data, EXPLICIT
        for step in (*steps, EXPLICIT):
            found, at = again(found, at, step), step
        assert found == data


def test_values_that_are_none_of_their_representation_pass_through() -> None:
    """Devices write such; a library that reads values would fail."""
    data = identity() + element(0x00281052, "DS", b"n/a ") + element(0x00200013, "IS", b"1.5e") + b""
    data += element(0x00080020, "DA", b"yesterday ") + element(0x00080008, "CS", b"lower\xff")
    implicit = again(data, EXPLICIT, IMPLICIT)
    for value in (b"n/a ", b"1.5e", b"yesterday ", b"lower\xff"):
        assert value in implicit
    assert again(implicit, IMPLICIT, EXPLICIT) == data


def test_private_elements_keep_their_bytes() -> None:
    nested = item(element(0x00291001, "", b"\x01\x02", IMPLICIT))
    private = element(0x00290010, "", b"ACME", IMPLICIT) + element(0x00291010, "", b"\x01\x02\x03\x04", IMPLICIT)
    private += undefined(0x00291020, "", nested, IMPLICIT)
    given = again(identity(IMPLICIT) + private, IMPLICIT, EXPLICIT)
    expected = element(0x00290010, "LO", b"ACME") + element(0x00291010, "UN", b"\x01\x02\x03\x04")
    expected += element(0x00291020, "UN", b"", length=UNDEFINED) + nested + delimiter()
    assert given == identity() + expected
    assert again(given, EXPLICIT, IMPLICIT) == identity(IMPLICIT) + private
    # UN is little endian wherever it is (PS3.5 6.2.2); what has a representation is turned round
    big = again(
        identity() + element(0x00291010, "UN", b"\x01\x02") + element(0x00291011, "US", b"\x01\x02"),
        EXPLICIT,
        BIG_ENDIAN,
    )
    assert big.endswith(
        element(0x00291010, "UN", b"\x01\x02", BIG_ENDIAN) + element(0x00291011, "US", b"\x02\x01", BIG_ENDIAN)
    )


def test_representations_that_depend_on_the_pixels() -> None:
    def recoded(sign: int, bits: int) -> pydicom.Dataset:
        icon = element(0x00280103, "", b"\0\0", IMPLICIT) + element(0x00280106, "", b"\0\0", IMPLICIT)
        data = identity(IMPLICIT) + element(0x00280100, "", struct.pack("<H", bits), IMPLICIT)
        data += element(0x00280103, "", struct.pack("<H", sign), IMPLICIT)
        data += element(0x00280106, "", b"\xff\xff", IMPLICIT) + element(0x00283006, "", b"\1\2\3\4", IMPLICIT)
        data += element(0x00880200, "", item(icon), IMPLICIT)
        return read(again(data + element(0x7FE00010, "", b"\1\2", IMPLICIT), IMPLICIT, EXPLICIT), EXPLICIT)

    signed, unsigned = recoded(1, 16), recoded(0, 8)
    assert (signed[0x00280106].VR, signed.SmallestImagePixelValue) == ("SS", -1)
    assert (unsigned[0x00280106].VR, unsigned.SmallestImagePixelValue) == ("US", 65535)
    assert signed.IconImageSequence[0][0x00280106].VR == "US", "an item has its own Pixel Representation"
    assert (signed["PixelData"].VR, unsigned["PixelData"].VR) == ("OW", "OB")
    assert signed[0x00283006].VR == "OW"


def test_a_value_too_long_for_its_header_becomes_unknown() -> None:
    """PS3.5 6.2.2: implicit VR has room for 4 GiB, explicit for 64 KiB of most representations."""
    long_text = element(0x00100020, "", b"x" * 70000, IMPLICIT)
    assert again(long_text, IMPLICIT, EXPLICIT) == element(0x00100020, "UN", b"x" * 70000)


def test_group_lengths_and_padding_are_left_out() -> None:
    data = element(0x00080000, "UL", b"\1\0\0\0") + identity() + bytes(64)
    assert again(data, EXPLICIT, IMPLICIT) == identity(IMPLICIT)


def test_a_slip_of_the_sender_is_read_as_it_is() -> None:
    """Implicit where explicit was said: such are taken, so such must be given."""
    assert again(identity(IMPLICIT), EXPLICIT, BIG_ENDIAN) == identity(BIG_ENDIAN)
    assert again(identity(IMPLICIT), EXPLICIT, EXPLICIT) == identity(IMPLICIT)


def test_deflated_is_of_even_length_and_a_bomb_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        assert len(again(identity(PatientID="x" * number), EXPLICIT, DEFLATED)) % 2 == 0
    monkeypatch.setattr("pacs.model.pieces.INFLATED_SIZE_BYTES_MAX", 1 << 20)
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(element(0x7FE00010, "OW", bytes(2 << 20))) + packer.flush()
    with pytest.raises(CannotUnderstand, match="larger"):
        again(bomb, DEFLATED, EXPLICIT)
    with pytest.raises(CannotUnderstand, match="cut short"):
        again(again(identity(), EXPLICIT, DEFLATED)[:-9], DEFLATED, EXPLICIT)


@pytest.mark.parametrize(
    "data",
    [
        identity()[:-3],
        identity() + element(0x00400275, "SQ", b"\x08\x00\x05\x00CS\x02\x00ab"),
        identity() + element(0x00400275, "SQ", b"", length=UNDEFINED) + item(b"", undefined=True),
        identity() + element(0x00400275, "SQ", item(identity())[:-2] + bytes(2), length=50),
        identity() + element(0x00280010, "US", b"\1\2\3"),
        b"".join(element(0x00400275, "SQ", b"", length=UNDEFINED) + item(b"", True)[:8] for _ in range(80)),
    ],
)
def test_what_cannot_be_read_is_a_reason(data: bytes) -> None:
    with pytest.raises(CannotUnderstand):
        again(data, EXPLICIT, BIG_ENDIAN)


# --- with changes ----------------------------------------------------------------------------------------------------

PIXELS = undefined(0x7FE00010, "OB", item(b"") + item(b"\xff\xd8 a frame"))
CHANGES = {
    0x00100010: Element("PN", b"Roe^Jane"),
    0x00100020: None,
    0x00100040: Element("CS", b"F"),
    0x00080005: Element("CS", b"ISO_IR 192"),
    0x00081140: Element("SQ", item(element(0x00081155, "UI", b"1.2\0"))),
}


def test_elements_are_replaced_removed_and_put_in_their_place() -> None:
    data = element(0x00080000, "UL", b"\1\0\0\0") + identity() + PIXELS
    start, replaced = recode_start([data], JPEG_BASELINE, CHANGES)
    rest = data[replaced:]
    ds = read(start + rest, JPEG_BASELINE)
    assert [str(each.tag) for each in ds] == sorted(str(each.tag) for each in ds)
    assert (ds.PatientName, ds.PatientSex, ds.SpecificCharacterSet) == ("Roe^Jane", "F", "ISO_IR 192")
    assert "PatientID" not in ds and ds.StudyInstanceUID == "1.2.3"
    assert ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2"
    assert rest.endswith(PIXELS) and rest.startswith(element(0x0020000D, "UI", b"1.2.3\0")), "the rest is untouched"


@pytest.mark.parametrize("target", NATIVE)
def test_changes_are_written_in_every_encoding(target: str) -> None:
    data = identity() + element(0x00280100, "US", b"\x10\0") + element(0x7FE00010, "OW", b"\1\2\3\4")
    changes = CHANGES | {0x00280010: Element("US", b"\2\0"), 0x7FE00010: Element("OW", b"\5\6\7\x08")}
    ds = read(again(data, EXPLICIT, target, changes), target)
    assert (ds.PatientName, ds.PatientSex, ds.Rows) == ("Roe^Jane", "F", 2)
    assert "PatientID" not in ds
    assert ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2"
    assert ds.PixelData == (b"\6\5\x08\7" if target == BIG_ENDIAN else b"\5\6\7\x08")


def test_a_change_behind_the_last_element_is_put_there() -> None:
    assert again(identity(), EXPLICIT, EXPLICIT, {0x00400001: Element("AE", b"X")}) == identity() + element(
        0x00400001, "AE", b"X "
    )
    start, replaced = recode_start([identity()], EXPLICIT, {0x00400001: Element("AE", b"X")})
    assert start == identity() + element(0x00400001, "AE", b"X ") and replaced == len(identity())
