"""Text of a data set: from bytes in a Specific Character Set to what the index holds.

Never raises: a value in an unknown or broken character set is worth an approximation in the index, as the object
itself keeps its bytes. What a database cannot hold (NUL) and what would break a line of a log or a page (control
characters) is replaced by a space.
"""

from __future__ import annotations

import re

from pydicom.charset import CODES_TO_ENCODINGS, default_encoding, python_encoding
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

#: The most characters of one value that the index keeps. An index entry of PostgreSQL has 2,700 bytes at most, a
#: patient's holds two values of up to 4 bytes a character.
LENGTH_MAX = 256

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f]+")
_FRAGMENT = re.compile(rb"\x1b[^\x1b]*|[^\x1b]+")
#: Escape sequence (PS3.3 Tables C.12-3 and C.12-4) → codec. JIS X 0208 of 1978 is what old Japanese devices wrote.
_ESCAPES = {**CODES_TO_ENCODINGS, b"\x1b$@": "iso2022_jp", b"\x1b$A": "gb2312"}
_PN_DELIMITERS = PN_DELIMS | {ord("=")}
_TEXT_DELIMITERS = TEXT_VR_DELIMS | {ord("\\")}
_KEEPS_ESCAPE = ("iso2022_jp", "iso2022_jp_2")  # these codecs read the escape sequence themselves


def encodings_of(specific_character_set: bytes) -> list[str]:
    """Python's codecs for a value of (0008,0005), unknown terms left out; never empty (PS3.3 C.12.1.1.2)."""
    terms = specific_character_set.decode("ascii", "ignore").strip(" \0").split("\\")
    known = [python_encoding[term] for term in map(_corrected, terms) if term in python_encoding]
    return known or [default_encoding]


def is_character_set(specific_character_set: str) -> bool:
    """Whether a value of (0008,0005) has known terms only."""
    return all(_corrected(term) in python_encoding for term in specific_character_set.split("\\"))


def _corrected(term: str) -> str:
    """A defined term as the standard spells it, of the spellings that devices send."""
    term = term.strip().upper()
    term = re.sub(r"^ISO[ _-]?2022[ _-]IR[ _-]?", "ISO 2022 IR ", term)
    term = re.sub(r"^ISO[ _-]?IR[ _-]?", "ISO_IR ", term)
    return "ISO_IR 192" if term in ("UTF-8", "UTF8") else term


def decode(value: bytes, vr: str, encodings: list[str]) -> str:
    """The text of a raw value, padding removed, cut to LENGTH_MAX characters."""
    value = value.rstrip(b" \0")
    if vr == "PN":
        text = _clean(_decode(value, encodings, _PN_DELIMITERS))
        return "=".join(group.rstrip(" ^") for group in text.split("=")).rstrip("=")
    if vr in ("LO", "SH", "LT", "ST", "UT", "UC"):
        return _clean(_decode(value, encodings, _TEXT_DELIMITERS))
    return _clean(value.decode("ascii", "replace"))


def _decode(value: bytes, encodings: list[str], delimiters: set[int]) -> str:
    """Text with code extensions (PS3.5 6.1.2.5). pydicom's own reader leaves the escapes of GB 2312 in, and logs."""
    if b"\x1b" not in value:
        return value.decode(encodings[0], "replace")
    return "".join(_decode_fragment(part, encodings[0], delimiters) for part in _FRAGMENT.findall(value))


def _decode_fragment(fragment: bytes, first: str, delimiters: set[int]) -> str:
    """A run of bytes up to the next escape sequence, of which it may begin with one."""
    escape = next((fragment[:size] for size in (4, 3) if fragment[:size] in _ESCAPES), b"")
    codec = _ESCAPES.get(escape, first)
    if codec in _KEEPS_ESCAPE:
        return fragment.decode(codec, "replace")
    text = fragment[len(escape) :]
    # A delimiter ends what the escape sequence began; where the first character set has no letters above ASCII,
    # those behind it can only be meant in the escape's.
    ends = len(text)
    if first != default_encoding:
        ends = next((at for at, byte in enumerate(text) if byte in delimiters), ends)
    return text[:ends].decode(codec, "replace") + text[ends:].decode(first, "replace")


def _clean(text: str) -> str:
    # ESC sequences of ISO 2022 are gone by now; what is left of control characters is an accident or an attack.
    return _CONTROL.sub(" ", text).strip()[:LENGTH_MAX].rstrip()
