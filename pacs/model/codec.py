"""Pixel data from one encoding into another, proven: what comes out is decoded again and compared with what went in.

Only what keeps every pixel is done. Uncompressed and losslessly compressed pixels go into any lossless encoding that
there is a codec for; lossily compressed ones are decoded only. Video, and what no codec reads, stays as it is stored.
The object stays the same one, its SOP Instance UID too: decoding changes no pixel (PS3.4 B.5, PS3.3 C.12.4), and what
was lossy once goes on saying so in Lossy Image Compression (PS3.3 C.7.6.1.1.5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID

from pacs.errors import CannotUnderstand
from pacs.model import part10
from pacs.model.dataset import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    PIXEL_DATA,
    scan,
)
from pacs.model.pieces import inflated
from pacs.model.recode import Changes, Element, recode
from pacs.model.record import integer

DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
#: Transfer syntaxes of pixels that are not compressed, the one that loses least of a data set first.
NATIVE = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
#: What pixels are compressed to, the smallest result for the time first: JPEG-LS, JPEG 2000, RLE.
LOSSLESS_TARGETS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5")
#: JPEG, JPEG SV1, JPEG-LS, JPEG 2000, HTJ2K, HTJ2K RPCL and RLE, lossless.
LOSSLESS = frozenset(
    [
        *LOSSLESS_TARGETS,
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.4.202",
    ]
)

_PIXEL_MODULE = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
_SAMPLES_PER_PIXEL, _NUMBER_OF_FRAMES = 0x00280002, 0x00280008
_SIZE_TAGS = (_SAMPLES_PER_PIXEL, _NUMBER_OF_FRAMES, 0x00280010, 0x00280011, 0x00280100)
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002)
_ADVICE = " Let the receiver accept the stored transfer syntax."


@cache
def _is_decodable(transfer_syntax_uid: str) -> bool:
    try:
        return bool(get_decoder(transfer_syntax_uid).is_available)
    except NotImplementedError:
        return False


@cache
def _is_encodable(transfer_syntax_uid: str) -> bool:
    return transfer_syntax_uid in LOSSLESS_TARGETS and bool(get_encoder(transfer_syntax_uid).is_available)


def may_become(source: str, target: str) -> bool:
    """Whether objects stored in one transfer syntax may be given in another, as far as syntaxes alone tell."""
    if source == target:
        return True
    if source not in NATIVE and not _is_decodable(source):
        return False
    if target in NATIVE:
        return True
    return _is_encodable(target) and (source in NATIVE or source in LOSSLESS)


def decoded_size_bytes(dataset: bytes, transfer_syntax_uid: str) -> int:
    """How large an object's pixels are when they are not compressed, and a deflated data set when it is inflated; 0 if
    it does not say. Raise CannotUnderstand."""
    values = scan(dataset, transfer_syntax_uid, _SIZE_TAGS)
    size = 1
    for tag in _SIZE_TAGS:
        raw, default = values.get(tag, b""), 1 if tag in (_NUMBER_OF_FRAMES, _SAMPLES_PER_PIXEL) else 0
        if tag == _NUMBER_OF_FRAMES:
            size *= integer(raw.decode("ascii", "replace").strip(" \0")) or default
        else:
            size *= int.from_bytes(raw, "big" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "little") or default
    grown = sum(map(len, inflated([dataset]))) if transfer_syntax_uid in DEFLATED else 0
    return max(size // 8, grown)


def transcode(dataset: bytes, source: str, target: str, changes: Changes | None = None) -> list[bytes]:
    """An encoded data set with its pixels in another encoding, all in memory, in pieces.

    Raise CannotUnderstand with the reason if there is no codec, the codec cannot hold such pixels, or what comes out
    is not the same pixels.
    """
    if not may_become(source, target):
        raise CannotUnderstand(f"No codec changes {UID(source).name} to what the receiver takes.{_ADVICE}")
    try:
        return _transcode(dataset, source, target, dict(changes or {}))
    except CannotUnderstand:
        raise
    except MemoryError:
        raise CannotUnderstand(f"Transcoding takes more memory than there is.{_ADVICE}") from None
    except Exception as error:  # codecs raise what they like
        name = UID(target).name if target not in NATIVE else "uncompressed"
        raise CannotUnderstand(
            f"The codec failed ({type(error).__name__}, {UID(source).name} to {name}).{_ADVICE}"
        ) from error


def _transcode(dataset: bytes, source: str, target: str, changes: dict[int, Element | None]) -> list[bytes]:
    if source in NATIVE and source != EXPLICIT_VR_LITTLE_ENDIAN:
        dataset, source = b"".join(recode([dataset], source, EXPLICIT_VR_LITTLE_ENDIAN)), EXPLICIT_VR_LITTLE_ENDIAN
    ds = _read(dataset, source)
    if "PixelData" not in ds:
        raise CannotUnderstand(f"An object without pixels is given uncompressed only.{_ADVICE}")
    before = {keyword: ds.get(keyword) for keyword in _PIXEL_MODULE}
    if source not in NATIVE:
        ds.decompress(as_rgb=source not in LOSSLESS, generate_instance_uid=False, correct_unused_bits=False)
    pixels = _digest(ds)
    if target in LOSSLESS_TARGETS:
        _compress(ds, target)
    changes |= dict.fromkeys(_OFFSET_TABLES)
    changes |= {UID_TAG[keyword]: _element(ds, keyword) for keyword in before if ds.get(keyword) != before[keyword]}
    changes[PIXEL_DATA] = Element(str(ds["PixelData"].VR), ds.PixelData, is_encapsulated=target not in NATIVE)
    if "ExtendedOffsetTable" in ds:
        changes |= {tag: Element("OV", ds[tag].value) for tag in _OFFSET_TABLES}
    del ds
    recoded = list(recode([dataset], source, target, changes))
    _prove(recoded, target, pixels)
    return recoded


UID_TAG = {keyword: int(pydicom.datadict.tag_for_keyword(keyword) or 0) for keyword in _PIXEL_MODULE}


def _element(ds: Dataset, keyword: str) -> Element | None:
    if keyword not in ds:
        return None
    element = ds[keyword]
    if element.VR == "US":
        return Element("US", int(element.value).to_bytes(2, "little"))
    return Element(str(element.VR), str(element.value).encode("ascii"))


def _compress(ds: Dataset, target: str) -> None:
    if int(ds.BitsAllocated) not in (8, 16, 32):
        raise CannotUnderstand(f"Pixels of so few bits cannot be compressed.{_ADVICE}")
    if int(ds.SamplesPerPixel) > 1 and ds.PlanarConfiguration == 1:
        ds.PixelData = b"".join(_frames(ds))
        ds.PlanarConfiguration = 0
    ds.compress(UID(target), generate_instance_uid=False)


def _read(dataset: bytes, transfer_syntax_uid: str) -> FileDataset:
    """The pixel data and what describes them, of an encoded data set."""
    start = part10.encode_file_meta("1.2.840.10008.5.1.4.1.1.7", "1.2.3", transfer_syntax_uid)
    tags = [*_PIXEL_MODULE, "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"]
    return pydicom.dcmread(BytesIO(start + dataset), specific_tags=tags)


def _frames(ds: Dataset) -> Iterator[bytes]:
    """The pixels of each frame, color by pixel, as they are: no color is converted, no bit beside the pixel (an overlay
    of old) is cleared."""
    decoder = get_decoder(ds.file_meta.TransferSyntaxUID)
    for array, _image_pixel in decoder.iter_array(ds, raw=True, correct_unused_bits=False):
        yield array.tobytes()


def _digest(ds: Dataset) -> bytes:
    digest = hashlib.sha256()
    for frame in _frames(ds):
        digest.update(frame)
    return digest.digest()


def _prove(recoded: list[bytes], target: str, pixels: bytes) -> None:
    """Raise CannotUnderstand unless the pixels of an encoded data set are these."""
    content, syntax = b"".join(recoded), target
    if target in NATIVE and target != EXPLICIT_VR_LITTLE_ENDIAN:
        content, syntax = b"".join(recode(recoded, target, EXPLICIT_VR_LITTLE_ENDIAN)), EXPLICIT_VR_LITTLE_ENDIAN
    if _digest(_read(content, syntax)) != pixels:
        raise CannotUnderstand(f"The codec would have changed its pixels ({UID(target).name}): not sent.{_ADVICE}")
