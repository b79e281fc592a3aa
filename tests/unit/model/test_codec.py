"""Pixels in another encoding: the same pixels, or a reason why not."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from pacs.errors import CannotUnderstand
from pacs.model import codec, part10
from pacs.model.dataset import scan
from pacs.model.recode import Element
from tests.peer import RawObject, read_raw
from tests.synthetic import ct_dataset, encode
from tests.unit.model.encoding import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, element, identity, item
from tests.unit.model.test_recode import again

JPEG_LS, JPEG_2000, RLE = codec.LOSSLESS_TARGETS
LOSSLESS = (
    "MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle_16bit_2frame.dcm", "GDCMJ2K_TextGBR.dcm",
)  # fmt: skip
UNCOMPRESSED = (
    "CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "examples_rgb_color.dcm",
    "image_dfl.dcm",
    "rtdose_1frame.dcm", "ExplVR_BigEnd.dcm", "examples_palette.dcm", "examples_overlay.dcm", "liver_1frame.dcm",
)  # fmt: skip
#: Pixels that PS3.5 8.2 lets no codec hold: of one bit, of 32.
REFUSED = {(name, target) for name in ("liver_1frame.dcm", "rtdose_1frame.dcm") for target in codec.LOSSLESS_TARGETS}
LOSSY = (
    "JPEG2000.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "examples_ybr_color.dcm",
)


def of_file(name: str) -> RawObject:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return read_raw(Path(path))


def read(dataset: bytes, syntax: str) -> pydicom.Dataset:
    start = part10.encode_file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", syntax)
    return pydicom.dcmread(BytesIO(start + dataset))


def transcoded(raw: RawObject, target: str) -> pydicom.Dataset:
    sent = b"".join(codec.transcode(raw.dataset, raw.transfer_syntax_uid, target))
    scan(sent, target, ())  # it is whole
    return read(sent, target)


def words(ds: pydicom.Dataset) -> dict[str, object]:
    """What a data set says, without pixels and what decoding changes."""
    changed = {
        "PixelData",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "DataSetTrailingPadding",
        "NumberOfFrames",
    }
    return {
        str(each.tag): str(each.value)
        for each in ds
        if each.tag.element and each.keyword not in changed and each.VR not in ("UN", "OB", "OW", "OF", "SQ")
    }


@pytest.mark.parametrize("target", [*codec.NATIVE, *codec.LOSSLESS_TARGETS])
@pytest.mark.parametrize("name", [*LOSSLESS, *UNCOMPRESSED])
def test_pixels_and_attributes_survive(name: str, target: str) -> None:
    raw = of_file(name)
    if raw.transfer_syntax_uid == target or {raw.transfer_syntax_uid, target} <= set(codec.NATIVE):
        return  # no codec has a part in it: test_recode.py
    original = read(raw.dataset, raw.transfer_syntax_uid)
    if (name, target) in REFUSED:
        with pytest.raises(CannotUnderstand):
            transcoded(raw, target)
        return
    received = transcoded(raw, target)
    assert words(received) == words(original)
    assert np.array_equal(received.pixel_array, original.pixel_array)
    assert received.SOPInstanceUID == original.SOPInstanceUID


@pytest.mark.parametrize("name", LOSSY)
def test_what_was_lossy_goes_on_saying_so(name: str) -> None:
    raw = of_file(name)
    received = transcoded(raw, EXPLICIT)
    original = read(raw.dataset, raw.transfer_syntax_uid)
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        assert received.get(keyword) == original.get(keyword)
    assert received.PhotometricInterpretation in ("RGB", "MONOCHROME2")
    size = received.Rows * received.Columns * received.SamplesPerPixel * received.BitsAllocated // 8
    assert len(received.PixelData) == size * int(received.get("NumberOfFrames") or 1)
    with pytest.raises(CannotUnderstand):
        transcoded(raw, JPEG_LS)


@pytest.mark.parametrize("target", codec.LOSSLESS_TARGETS)
@pytest.mark.parametrize(
    ("stored", "sign", "samples"),
    [(16, 0, 1), (16, 1, 1), (12, 1, 1), (9, 0, 1), (8, 0, 1), (8, 1, 1), (8, 0, 3), (16, 0, 3)],
)
def test_every_kind_of_pixel_survives_or_is_refused(target: str, stored: int, sign: int, samples: int) -> None:
    """Signed, all 16 bits, many samples: where other archives changed pixels (pacs-peers.md 4.22)."""
    ds = ct_dataset(1)
    allocated = 8 if stored == 8 else 16
    low, high = (-(1 << stored - 1), 1 << stored - 1) if sign else (0, 1 << stored)
    kind = {(8, 0): "u1", (8, 1): "i1", (16, 0): "<u2", (16, 1): "<i2"}[allocated, sign]
    pixels = np.random.default_rng(7).integers(low, high, (64, 64, samples)).astype(kind)
    pixels[0, 0], pixels[0, 1] = low, high - 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = allocated, stored, stored - 1, sign
    ds.SamplesPerPixel = samples
    if samples == 3:
        ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", 1
        pixels = pixels.transpose(2, 0, 1)
    ds["PixelData"].VR = "OW" if allocated == 16 else "OB"
    ds.PixelData = pixels.tobytes()
    made = encode(ds)
    received = transcoded(RawObject.of(made), target)
    expected = pixels.transpose(1, 2, 0) if samples == 3 else pixels[:, :, 0]
    assert np.array_equal(received.pixel_array, expected)
    assert len(b"".join(codec.transcode(made.dataset, EXPLICIT, target))) != len(made.dataset)


@pytest.mark.parametrize("target", [JPEG_LS, JPEG_2000])
def test_bits_that_a_codec_would_drop_are_noticed(target: str) -> None:
    """An overlay in the high bits of the pixels, as old devices have it."""
    ds = ct_dataset(1)
    pixels = np.frombuffer(ds.PixelData, "<u2") | np.uint16(0x8000)
    ds.PixelData = pixels.tobytes()
    with pytest.raises(CannotUnderstand, match=r"would have changed its pixels|codec failed"):
        transcoded(RawObject.of(encode(ds)), target)


def test_a_wrong_codec_is_a_reason_and_no_wrong_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.dataset import Dataset

    real = Dataset.compress

    def wrong(ds: Dataset, *words: object, **named: object) -> None:
        ds.PixelData = bytes(ds.PixelData[:-1]) + bytes([ds.PixelData[-1] ^ 1])
        real(ds, *words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Dataset, "compress", wrong)
    for target in codec.LOSSLESS_TARGETS:
        with pytest.raises(CannotUnderstand, match="would have changed its pixels"):
            transcoded(RawObject.of(encode(ct_dataset(1))), target)


def test_pixels_of_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """DCMTK and pydicom do not agree on their order in big endian; see pacs/model/recode.py."""
    raw = of_file("rtdose_rle.dcm")
    assert np.array_equal(transcoded(raw, IMPLICIT).pixel_array, read(raw.dataset, RLE).pixel_array)
    with pytest.raises(CannotUnderstand, match="big endian"):
        transcoded(raw, BIG_ENDIAN)


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.100",
        "1.2.840.10008.1.2.4.102",
        "1.2.840.10008.1.2.4.107",
        "1.2.840.10008.1.2.4.94",
        "1.2.840.10008.1.2.4.95",
        "1.2.840.10008.1.2.4.110",
        "1.2.3.4",
        "1.2.840.10008.1.2.8.1",
    ],
)
def test_without_a_codec_it_says_so(syntax: str) -> None:
    pixels = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + item(b"") + item(b"abcd") + b"\xfe\xff\xdd\xe0\0\0\0\0"
    for target in (*codec.NATIVE, *codec.LOSSLESS_TARGETS):
        assert not codec.may_become(syntax, target)
        with pytest.raises(CannotUnderstand, match="Let the receiver accept"):
            codec.transcode(identity() + pixels, syntax, target)
    assert codec.may_become(syntax, syntax)


def test_pixels_that_cannot_be_decoded_are_a_reason() -> None:
    raw = of_file("MR_small_RLE.dcm")
    broken = raw.dataset[:-3000] + bytes(2992) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    with pytest.raises(CannotUnderstand) as caught:
        codec.transcode(broken, raw.transfer_syntax_uid, EXPLICIT)
    assert "Let the receiver accept" in str(caught.value)


def test_without_pixels_there_is_nothing_to_compress() -> None:
    with pytest.raises(CannotUnderstand, match="without pixels"):
        codec.transcode(identity(), EXPLICIT, JPEG_LS)


def test_changes_go_with_it() -> None:
    raw = of_file("MR_small_RLE.dcm")
    changes = {0x00100010: Element("PN", b"Roe^Jane")}
    sent = b"".join(codec.transcode(raw.dataset, raw.transfer_syntax_uid, JPEG_LS, changes))
    assert read(sent, JPEG_LS).PatientName == "Roe^Jane"


def test_how_large_the_pixels_will_be() -> None:
    made = encode(ct_dataset(1, rows=64, columns=32))
    assert codec.decoded_size_bytes(made.dataset, EXPLICIT) == 64 * 32 * 2
    frames = identity() + element(0x00280002, "US", b"\3\0") + element(0x00280008, "IS", b"10")
    frames += (
        element(0x00280010, "US", b"\0\4") + element(0x00280011, "US", b"\0\4") + element(0x00280100, "US", b"\x08\0")
    )
    assert codec.decoded_size_bytes(frames, EXPLICIT) == 3 * 10 * 1024 * 1024
    assert codec.decoded_size_bytes(identity(), EXPLICIT) == 0
    hidden = again(identity() + element(0x00420011, "OB", bytes(1 << 20)), EXPLICIT, DEFLATED)
    assert len(hidden) < 1 << 12
    assert codec.decoded_size_bytes(hidden, DEFLATED) > 1 << 20
