"""Whether two data sets with one SOP Instance UID have the same content in two encodings.

The answer may be a false no (then both are kept, and a person decides), never a false yes.
"""

from __future__ import annotations

import hashlib
from io import BytesIO

import pydicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs.model.bounds import require_small_inflated, require_small_pixels
from pacs.model.byteorder import swap_words

#: Larger objects are not compared but kept both [bytes]: decoding takes memory.
SIZE_BYTES_MAX = 16 << 20

_LOSSLESS = frozenset(
    [
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.5",
    ]
)


def same_content(one: tuple[bytes, str], other: tuple[bytes, str]) -> bool:
    """Whether two (encoded data set, transfer syntax UID) hold the same elements and the same pixels."""
    if max(len(one[0]), len(other[0])) > SIZE_BYTES_MAX:
        return False
    try:
        return _canonical_digest(*one) == _canonical_digest(*other)
    except Exception:  # any fault of a decoder means: not shown to be equal
        return False


def _canonical_digest(data: bytes, transfer_syntax_uid: str) -> bytes:
    require_small_inflated(data, transfer_syntax_uid, SIZE_BYTES_MAX)
    ds = read_dataset(data, transfer_syntax_uid)
    syntax = UID(transfer_syntax_uid)
    _make_private_bytes(ds)
    if syntax.is_compressed and not syntax.is_deflated:
        if transfer_syntax_uid not in _LOSSLESS:
            raise ValueError("lossy: its pixels can be no other encoding's")
        require_small_pixels(ds, SIZE_BYTES_MAX)
        ds.decompress(generate_instance_uid=False)
    if not syntax.is_little_endian:
        swap_words(ds)
    if "PixelData" in ds:
        ds["PixelData"].VR = "OB"  # explicit VR says OB or OW, implicit always OW (PS3.5 A.1): it is no content
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    write_dataset(buffer, ds)
    return hashlib.sha256(buffer.getvalue()).digest()


def _make_private_bytes(ds: Dataset) -> None:
    """Make private elements UN, with their bytes: implicit VR cannot say what else they are.

    Where their bytes depend on the encoding (in sequences, in big endian) that is one of the false noes.
    """
    for tag in list(ds.keys()):
        raw = ds.get_item(tag)
        if tag.is_private and isinstance(raw, RawDataElement):
            ds[tag] = DataElement(tag, "UN", raw.value or b"")
        elif raw.VR == "SQ" or not tag.is_private:
            element = ds[tag]
            for each in element.value if element.VR == "SQ" else ():
                _make_private_bytes(each)


def read_dataset(data: bytes, transfer_syntax_uid: str) -> Dataset:
    """A pydicom data set of encoded bytes that have no file meta information."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    head = DicomBytesIO()
    head.is_implicit_VR, head.is_little_endian = False, True
    pydicom.filewriter.write_file_meta_info(head, meta, enforce_standard=False)
    return pydicom.dcmread(BytesIO(bytes(128) + b"DICM" + head.getvalue() + data))
