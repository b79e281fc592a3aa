"""Same content in two encodings: never a false yes, and yes for what devices and gateways really do to an object."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from pacs.model.equality import same_content
from tests.synthetic import ct_dataset, encode
from tests.unit.model.encoding import BIG_ENDIAN, EXPLICIT, IMPLICIT, element, identity, item

DEFLATED = "1.2.840.10008.1.2.1.99"


def pair(ds: Dataset, syntax: str) -> tuple[bytes, str]:
    made = encode(ds, syntax)
    return made.dataset, syntax


def compressed(ds: Dataset, syntax: str = RLELossless) -> tuple[bytes, str]:
    encode(ds)  # gives it file meta information
    ds.compress(syntax, generate_instance_uid=False)
    return pair(ds, syntax)


def of_file(name: str) -> tuple[bytes, str]:
    ds = pydicom.dcmread(get_testdata_file(name, download=False))
    ds.remove_private_tags()
    return pair(ds, ds.file_meta.TransferSyntaxUID)


def color(seed: int = 1) -> Dataset:
    """8-bit RGB: its pixel data are OB in explicit VR, OW in implicit."""
    ds = ct_dataset(seed, rows=16, columns=16)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.add_new(0x7FE00010, "OB", bytes(range(256)) * 3)
    return ds


@pytest.mark.parametrize("make", [lambda: ct_dataset(1), color])
def test_one_object_in_every_uncompressed_encoding_and_rle(make) -> None:  # type: ignore[no-untyped-def]
    explicit = pair(make(), ExplicitVRLittleEndian)
    assert same_content(explicit, pair(make(), ImplicitVRLittleEndian))
    assert same_content(compressed(make()), explicit)
    assert same_content(compressed(make()), pair(make(), ImplicitVRLittleEndian))


@pytest.mark.parametrize("make", [lambda: ct_dataset(1), color])
def test_one_pixel_is_other_content(make) -> None:  # type: ignore[no-untyped-def]
    changed = make()
    pixels = bytearray(changed.PixelData)
    pixels[17] ^= 1
    changed.PixelData = bytes(pixels)
    for other in (pair(changed, ImplicitVRLittleEndian), pair(changed, ExplicitVRLittleEndian), compressed(changed)):
        assert not same_content(pair(make(), ExplicitVRLittleEndian), other)


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: setattr(ds, "PatientName", "Other^Name"),
        lambda ds: setattr(ds, "InstanceNumber", 99),
        lambda ds: delattr(ds, "AccessionNumber"),
        lambda ds: setattr(ds, "ImageComments", ""),
        lambda ds: setattr(ds, "SeriesTime", "101500"),
    ],
)
def test_one_attribute_is_other_content(change) -> None:  # type: ignore[no-untyped-def]
    changed = ct_dataset(1)
    change(changed)
    assert not same_content(pair(ct_dataset(1), ExplicitVRLittleEndian), pair(changed, ImplicitVRLittleEndian))


def private(value: bytes, syntax: str, vr: str = "OB", inside: bool = False) -> tuple[bytes, str]:
    block = element(0x00090010, "LO", b"ACME    ", syntax) + element(0x00091001, vr, value, syntax)
    if inside:
        block = element(0x00081140, "SQ", item(block, syntax=syntax), syntax)
    head, tail = identity(syntax), b""
    at = head.index(b"\x10\x00\x10\x00" if syntax != BIG_ENDIAN else b"\x00\x10\x00\x10")
    return head[:at] + block + head[at:] + tail, syntax


@pytest.mark.parametrize("inside", [False, True])
def test_a_difference_in_a_private_attribute_alone_is_other_content(inside: bool) -> None:
    """Dose, diffusion and the like are where makers put them; what is dropped as 'the same' is gone."""
    one = private(b"\x01\x02\x03\x04", EXPLICIT, inside=inside)
    assert same_content(one, private(b"\x01\x02\x03\x04", IMPLICIT, inside=inside))
    assert not same_content(one, private(b"\x01\x02\x03\x05", IMPLICIT, inside=inside))
    assert not same_content(one, (identity(IMPLICIT), IMPLICIT))


def test_private_text_and_numbers_are_compared_as_bytes() -> None:
    for vr, value in (("LO", b"secret  "), ("DS", b"1.50"), ("US", b"\x01\x00"), ("FD", bytes(range(8)))):
        assert same_content(private(value, EXPLICIT, vr), private(value, IMPLICIT, vr)), vr
        changed = value[:-1] + bytes([value[-1] ^ 1])
        assert not same_content(private(value, EXPLICIT, vr), private(changed, IMPLICIT, vr)), vr


def test_big_endian_words_are_compared_as_numbers() -> None:
    def made(pixels: bytes, syntax: str) -> tuple[bytes, str]:
        return identity(syntax) + element(0x7FE00010, "OW", pixels, syntax), syntax

    little = made(b"\x01\x02\x03\x04", EXPLICIT)
    assert same_content(little, made(b"\x02\x01\x04\x03", BIG_ENDIAN))
    assert same_content(made(b"\x01\x02\x03\x04", IMPLICIT), made(b"\x02\x01\x04\x03", BIG_ENDIAN))
    assert not same_content(little, made(b"\x01\x02\x03\x04", BIG_ENDIAN))


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm"])
def test_lossy_pixels_are_never_the_same_as_others(name: str) -> None:
    lossy = of_file(name)
    decoded = pydicom.dcmread(get_testdata_file(name, download=False))
    decoded.remove_private_tags()
    try:
        decoded.decompress(generate_instance_uid=False)
    except Exception as error:
        pytest.skip(f"no decoder here: {error}")
    assert not same_content(lossy, pair(decoded, ExplicitVRLittleEndian))


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"])
def test_lossless_pixels_are_what_they_decode_to(name: str) -> None:
    packed = of_file(name)
    decoded = pydicom.dcmread(get_testdata_file(name, download=False))
    decoded.remove_private_tags()
    decoded.decompress(generate_instance_uid=False)
    assert same_content(packed, pair(decoded, ExplicitVRLittleEndian))
    pixels = bytearray(decoded.PixelData)
    pixels[0] ^= 1
    decoded.PixelData = bytes(pixels)
    assert not same_content(packed, pair(decoded, ExplicitVRLittleEndian))


def test_what_cannot_be_read_is_not_the_same() -> None:
    whole = pair(ct_dataset(1), ExplicitVRLittleEndian)
    for other in (
        (b"", EXPLICIT),
        (whole[0][:700], EXPLICIT),
        (b"rubbish" * 50, IMPLICIT),
        (whole[0], "1.2.3"),
        (whole[0], DEFLATED),
    ):
        assert not same_content(whole, other)
        assert not same_content(other, whole)
