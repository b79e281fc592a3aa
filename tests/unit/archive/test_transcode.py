"""Objects sent in another transfer syntax than they are stored in: the same pixels, or a reason why not."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs.archive.retrieve import Found, transcode
from pacs.errors import CannotUnderstand
from pacs.model import part10
from pacs.model.dataset import scan
from pacs.storage.files import Volume
from pacs.storage.volume import create_identity
from tests.peer import read_raw
from tests.unit.model.encoding import EXPLICIT, element, identity, item

TARGETS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
LOSSLESS = (
    "CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "image_dfl.dcm", "liver_expb_1frame.dcm",
    "ExplVR_BigEnd.dcm",
)  # fmt: skip


def stored(folder: Path, dataset: bytes, syntax: str) -> Found:
    """A file as the archive keeps it."""
    start = part10.encode_file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", syntax)
    (folder / "stored.dcm").write_bytes(start + dataset)
    create_identity(folder, ("tier1",))
    return Found(Volume(folder, "tier1"), "stored.dcm", len(start), len(dataset))


def of_file(folder: Path, name: str) -> Found:
    raw = read_raw(Path(get_testdata_file(name, download=False)))
    return stored(folder, raw.dataset, raw.transfer_syntax_uid)


def read(dataset: bytes, syntax: UID) -> pydicom.Dataset:
    start = part10.encode_file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", syntax)
    return pydicom.dcmread(BytesIO(start + dataset))


def words(ds: pydicom.Dataset) -> dict[str, object]:
    """What a data set says, without pixels and what decoding changes."""
    changed = {"PixelData", "PhotometricInterpretation", "PlanarConfiguration", "DataSetTrailingPadding"}
    return {
        str(element.tag): str(element.value)
        for element in ds
        if element.tag.element and element.keyword not in changed and element.VR not in ("UN", "OB", "OW", "OF", "SQ")
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LOSSLESS)
def test_pixels_and_attributes_survive(tmp_path: Path, name: str, target: UID) -> None:
    found = of_file(tmp_path, name)
    original = pydicom.dcmread(found.path)
    sent = transcode(found, target)
    received = read(sent, target)
    assert words(received) == words(original)
    assert np.array_equal(received.pixel_array, original.pixel_array)
    scan(sent, target, {0x00080018})  # and it is whole


def test_words_that_are_no_pixels_are_turned_round_too(tmp_path: Path) -> None:
    """Overlays and look-up tables are words as well; in sequences, too."""
    table = element(0x00283006, "OW", b"\x01\x02\x03\x04")
    data = identity() + element(0x00283010, "SQ", item(table)) + element(0x60003000, "OW", b"\x05\x06")
    sent = read(transcode(stored(tmp_path, data, EXPLICIT), ExplicitVRBigEndian), ExplicitVRBigEndian)
    assert sent[0x60003000].value == b"\x06\x05"
    assert sent.VOILUTSequence[0].LUTData == b"\x02\x01\x04\x03"


@pytest.mark.parametrize(
    ("name", "target"), [("rtdose_expb.dcm", ExplicitVRLittleEndian), ("rtdose_rle.dcm", ExplicitVRBigEndian)]
)
def test_pixels_of_32_bits_are_not_turned_round(tmp_path: Path, name: str, target: UID) -> None:
    """DCMTK and pydicom do not agree how; see pacs/model/byteorder.py."""
    with pytest.raises(CannotUnderstand):
        transcode(of_file(tmp_path, name), target)


def test_pixels_of_32_bits_are_decompressed(tmp_path: Path) -> None:
    found = of_file(tmp_path, "rtdose_rle.dcm")
    received = read(transcode(found, ImplicitVRLittleEndian), ImplicitVRLittleEndian)
    assert np.array_equal(received.pixel_array, pydicom.dcmread(found.path).pixel_array)


def test_the_uid_stays(tmp_path: Path) -> None:
    found = of_file(tmp_path, "MR_small_RLE.dcm")
    assert read(transcode(found, ExplicitVRLittleEndian), ExplicitVRLittleEndian).SOPInstanceUID == (
        pydicom.dcmread(found.path).SOPInstanceUID
    )


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.110", "1.2.3.4"])
def test_without_a_codec_it_says_so(tmp_path: Path, syntax: str) -> None:
    pixels = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + item(b"") + item(b"abcd") + b"\xfe\xff\xdd\xe0\0\0\0\0"
    with pytest.raises(CannotUnderstand) as caught:
        transcode(stored(tmp_path, identity() + pixels, syntax), ImplicitVRLittleEndian)
    assert "Let the receiver accept" in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_pixels_that_cannot_be_decoded_are_a_reason(tmp_path: Path) -> None:
    raw = read_raw(Path(get_testdata_file("MR_small_RLE.dcm", download=False)))
    found = stored(tmp_path, raw.dataset.replace(raw.dataset[-2000:-1000], bytes(1000)), raw.transfer_syntax_uid)
    broken = found.path.read_bytes()[:-3000] + bytes(2992) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    found.path.write_bytes(broken)
    try:
        transcode(found, ExplicitVRLittleEndian)
    except CannotUnderstand as error:
        assert "decoding failed" in str(error)
