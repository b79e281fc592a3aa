"""Whether two data sets with one SOP Instance UID have the same content in two encodings.

The answer may be a false no (then both are kept, and a person decides), never a false yes.
"""

from __future__ import annotations

import hashlib
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

#: Larger objects are not compared but kept both [bytes]: decoding takes memory.
SIZE_BYTES_MAX = 256 << 20

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
    ds = read_dataset(data, transfer_syntax_uid)
    syntax = UID(transfer_syntax_uid)
    if syntax.is_compressed and not syntax.is_deflated:
        if transfer_syntax_uid not in _LOSSLESS:
            raise ValueError("lossy: its pixels can be no other encoding's")
        ds.decompress(generate_instance_uid=False)
    ds.remove_private_tags()  # implicit VR cannot say what they are; a difference in them alone is no conflict
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    write_dataset(buffer, ds)
    return hashlib.sha256(buffer.getvalue()).digest()


def read_dataset(data: bytes, transfer_syntax_uid: str) -> Dataset:
    """A pydicom data set of encoded bytes that have no file meta information."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    head = DicomBytesIO()
    head.is_implicit_VR, head.is_little_endian = False, True
    pydicom.filewriter.write_file_meta_info(head, meta, enforce_standard=False)
    return pydicom.dcmread(BytesIO(bytes(128) + b"DICM" + head.getvalue() + data))
