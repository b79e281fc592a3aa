"""Text of a data set: from bytes in a Specific Character Set to what the index holds.

Never raises: a value in an unknown or broken character set is worth an approximation in the index, as the object
itself keeps its bytes. What a database cannot hold (NUL) and what would break a line of a log or a page (control
characters) is replaced by a space.
"""

from __future__ import annotations

import re
import warnings

from pydicom.charset import decode_bytes, python_encoding
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

# pydicom warns of every odd character set. They are the sender's, we see many, and they are handled here.
warnings.filterwarnings("ignore", module=r"pydicom\.charset")

#: The most characters of one value that the index keeps. PostgreSQL cannot index values of over 2,700 bytes.
LENGTH_MAX = 512

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f]+")


def encodings_of(specific_character_set: bytes) -> list[str]:
    """Python's codecs for a value of (0008,0005), unknown terms left out; never empty (PS3.3 C.12.1.1.2)."""
    terms = specific_character_set.decode("ascii", "ignore").strip(" \0").split("\\")
    known = [python_encoding[term.strip()] for term in terms if term.strip() in python_encoding]
    return known or ["iso8859"]


def decode(value: bytes, vr: str, encodings: list[str]) -> str:
    """The text of a raw value, padding removed, cut to LENGTH_MAX characters."""
    value = value.rstrip(b" \0")
    if vr == "PN":
        text = _decode(value, encodings, set(PN_DELIMS))
        return _clean("=".join(group.rstrip(" ^") for group in text.split("=")).rstrip("="))
    if vr in ("LO", "SH", "LT", "ST", "UT", "UC"):
        return _clean(_decode(value, encodings, set(TEXT_VR_DELIMS)))
    return _clean(value.decode("ascii", "replace"))


def _decode(value: bytes, encodings: list[str], delimiters: set[int]) -> str:
    if len(encodings) == 1:
        return value.decode(encodings[0], "replace")
    try:
        return decode_bytes(value, encodings, delimiters)
    except (LookupError, ValueError):
        return value.decode(encodings[0], "replace")


def _clean(text: str) -> str:
    # ESC sequences of ISO 2022 are gone by now; what is left of control characters is an accident or an attack.
    return _CONTROL.sub(" ", text).strip()[:LENGTH_MAX]
