"""Data sets by hand: elements as bytes, so that a test says what is on the wire and not what a library makes of it."""

from __future__ import annotations

import struct

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"

UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])


def element(tag: int, vr: str, value: bytes, syntax: str = EXPLICIT, length: int | None = None) -> bytes:
    """An encoded element. `length` is what it says of itself, if not the truth."""
    size = len(value) if length is None else length
    end = ">" if syntax == BIG_ENDIAN else "<"
    head = struct.pack(f"{end}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<L", size) + value
    if vr in _LONG_VRS:
        return head + vr.encode() + struct.pack(f"{end}HL", 0, size) + value
    return head + vr.encode() + struct.pack(f"{end}H", size) + value


def item(content: bytes, undefined: bool = False, syntax: str = EXPLICIT) -> bytes:
    """An item of a sequence; closed by its delimiter where its length is undefined."""
    end = ">" if syntax == BIG_ENDIAN else "<"
    if undefined:
        return struct.pack(f"{end}HHL", 0xFFFE, 0xE000, UNDEFINED) + content + delimiter(0xE00D, syntax)
    return struct.pack(f"{end}HHL", 0xFFFE, 0xE000, len(content)) + content


def delimiter(element_number: int = 0xE0DD, syntax: str = EXPLICIT) -> bytes:
    """A sequence's delimiter, or an item's (0xE00D)."""
    return struct.pack(">HHL" if syntax == BIG_ENDIAN else "<HHL", 0xFFFE, element_number, 0)


def undefined(tag: int, vr: str, content: bytes, syntax: str = EXPLICIT) -> bytes:
    """An element of undefined length with its sequence delimiter."""
    return element(tag, vr, b"", syntax, UNDEFINED) + content + delimiter(syntax=syntax)


def identity(syntax: str = EXPLICIT, **values: str) -> bytes:
    """The elements that every object must have, with a patient; `values` replace them by keyword."""
    table = {
        "SOPClassUID": (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2"),
        "SOPInstanceUID": (0x00080018, "UI", "1.2.3.4"),
        "PatientName": (0x00100010, "PN", "Doe^Jane"),
        "PatientID": (0x00100020, "LO", "P1"),
        "StudyInstanceUID": (0x0020000D, "UI", "1.2.3"),
        "SeriesInstanceUID": (0x0020000E, "UI", "1.2.3.1"),
    }
    encoded = b""
    for keyword, (tag, vr, value) in table.items():
        raw = values.get(keyword, value).encode("latin-1")
        encoded += element(tag, vr, raw + (b"\0" if vr == "UI" else b" ") * (len(raw) % 2), syntax)
    return encoded
