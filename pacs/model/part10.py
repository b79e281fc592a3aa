"""The start of a stored file: preamble, prefix and file meta information (PS3.10 7.1).

It is a pure function of SOP class, SOP instance and transfer syntax, so that equal data sets make equal files.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pacs.errors import CannotUnderstand
from pacs.model.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

#: No file of this archive has a longer start than this [bytes].
START_BYTES_MAX = 1024

_PREFIX = bytes(128) + b"DICM"


@dataclass(frozen=True)
class FileMeta:
    """What a stored file says of the data set behind it, and where that starts [bytes]."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_offset: int


def encode_file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """The bytes that stand before the data set in its file (PS3.10 Table 7.1-1)."""
    elements = b"".join(
        (
            struct.pack("<HH2sHL2s", 0x0002, 0x0001, b"OB", 0, 2, b"\x00\x01"),
            _ui(0x0002, sop_class_uid),
            _ui(0x0003, sop_instance_uid),
            _ui(0x0010, transfer_syntax_uid),
            _ui(0x0012, IMPLEMENTATION_CLASS_UID),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode(), b" "),
        )
    )
    return _PREFIX + struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(elements)) + elements


def _ui(element: int, uid: str) -> bytes:
    return _short(element, b"UI", uid.encode("ascii"), b"\0")


def _short(element: int, vr: bytes, value: bytes, padding: bytes) -> bytes:
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def decode_file_meta(start: bytes) -> FileMeta:
    """What the start of a file stored by this archive says. A few hundred bytes are enough.

    Raise CannotUnderstand if it is not one: this reads our own files only, any other's goes through pydicom.
    """
    try:
        if start[:132] != _PREFIX:
            raise CannotUnderstand("The file does not start as one of this archive does.")
        (length,) = struct.unpack_from("<L", start, 140)
        at, end = 144, 144 + length
        if end > len(start):
            raise CannotUnderstand("The file's meta information is cut short.")
        values: dict[int, bytes] = {}
        while at < end:
            _group, element, vr, size = struct.unpack_from("<HH2sH", start, at)
            at += 8
            if vr == b"OB":
                (size,) = struct.unpack_from("<L", start, at)
                at += 4
            values[element] = start[at : at + size]
            at += size
        sop_class, sop_instance, syntax = (values[tag].rstrip(b"\0").decode("ascii") for tag in (0x2, 0x3, 0x10))
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise CannotUnderstand("The file's meta information is damaged.") from error
    return FileMeta(sop_class, sop_instance, syntax, end)
