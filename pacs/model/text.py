"""Text of a data set: from bytes in a Specific Character Set to what the index holds.

Never raises: a value in an unknown or broken character set is worth an approximation in the index, as the object
itself keeps its bytes. What a database cannot hold (NUL) and what would break a line of a log or a page (control
characters) is replaced by a space.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.charset import (
    CODES_TO_ENCODINGS,
    ENCODINGS_TO_CODES,
    default_encoding,
    python_encoding,
)
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

#: The most characters of one value that the index keeps. An index entry of PostgreSQL has 2,700 bytes at most, a
#: patient's holds two values of up to 4 bytes a character.
LENGTH_MAX = 256

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f]+")
_FRAGMENT = re.compile(rb"\x1b[^\x1b]*|[^\x1b]+")
#: Escape sequence (PS3.3 Tables C.12-3 and C.12-4) → codec. JIS X 0208 of 1978 is what old Japanese devices wrote.
_ESCAPES = {
    **CODES_TO_ENCODINGS,
    b"\x1b$@": "iso2022_jp",
    b"\x1b$A": "gb2312",
    b"\x1b-b": "iso8859_15",
}
_CODES = {codec: escape for escape, codec in _ESCAPES.items() if escape != b"\x1b(J"} | {
    "iso_ir_58": ENCODINGS_TO_CODES["iso_ir_58"]
}
#: Value representations whose text the Specific Character Set concerns (PS3.5 6.1.2.2).
_CODED_VRS = frozenset(["PN", "LO", "SH", "LT", "ST", "UT", "UC"])
_MULTI_BYTE_WITH_EXTENSIONS = frozenset(["euc_kr", "iso_ir_58", "gb2312"])
#: Terms that pydicom does not know: Latin alphabet No. 9.
_ENCODINGS = {**python_encoding, "ISO_IR 203": "iso8859_15", "ISO 2022 IR 203": "iso8859_15"}
#: The defined terms of Specific Character Set (0008,0005) that are understood.
CHARACTER_SETS = tuple(_ENCODINGS)
_PN_DELIMITERS = PN_DELIMS | {ord("=")}
_TEXT_DELIMITERS = TEXT_VR_DELIMS | {ord("\\")}
_KEEPS_ESCAPE = ("iso2022_jp", "iso2022_jp_2")  # these codecs read the escape sequence themselves


def terms_of(specific_character_set: bytes) -> list[str]:
    """The defined terms of a value of (0008,0005) that are known, as the standard spells them."""
    terms = specific_character_set.decode("ascii", "ignore").strip(" \0").split("\\")
    return [term for term in map(_corrected, terms) if term in _ENCODINGS]


def encodings_of(specific_character_set: bytes) -> list[str]:
    """Python's codecs for a value of (0008,0005), unknown terms left out; never empty (PS3.3 C.12.1.1.2)."""
    return [_ENCODINGS[term] for term in terms_of(specific_character_set)] or [default_encoding]


def is_character_set(specific_character_set: str) -> bool:
    """Whether a value of (0008,0005) has known terms only."""
    return all(_corrected(term) in _ENCODINGS for term in specific_character_set.split("\\"))


def _corrected(term: str) -> str:
    """A defined term as the standard spells it, of the spellings that devices send."""
    term = term.strip().upper()
    term = re.sub(r"^ISO[ _-]?2022[ _-]IR[ _-]?", "ISO 2022 IR ", term)
    term = re.sub(r"^ISO[ _-]?IR[ _-]?", "ISO_IR ", term)
    return "ISO_IR 192" if term in ("UTF-8", "UTF8") else term


def decode(value: bytes, vr: str, encodings: Sequence[str], length_max: int = LENGTH_MAX) -> str:
    """The text of a raw value, padding removed, cut to length_max characters."""
    value = value.rstrip(b" \0")
    if vr == "PN":
        text = _clean(_decode(value, encodings, _PN_DELIMITERS), length_max)
        return "=".join(group.rstrip(" ^") for group in text.split("=")).rstrip("=")
    if vr in _CODED_VRS:
        return _clean(_decode(value, encodings, _TEXT_DELIMITERS), length_max)
    return _clean(value.decode("ascii", "replace"), length_max)


def decode_values(value: bytes, vr: str, encodings: Sequence[str]) -> list[str]:
    """All values of a raw text as they are, padding removed: nothing is cut, no control character replaced."""
    value = value.rstrip(b" \0")
    if vr == "PN":
        text = _decode(value, encodings, _PN_DELIMITERS)
    elif vr in _CODED_VRS:
        text = _decode(value, encodings, _TEXT_DELIMITERS)
    else:
        text = value.decode("ascii", "replace")
    if vr in ("LT", "ST", "UT", "UR"):
        return [text]
    return [each.strip(" \0") for each in text.split("\\")]


def encode(value: str, vr: str, encodings: list[str]) -> bytes | None:
    """The bytes of a text in a character set, with code extensions where it has several (PS3.5 6.1.2.5).

    None if it cannot hold the text. `value` is as `decode` gives it.
    """
    if vr not in _CODED_VRS or value.isascii():
        return value.encode("ascii", "replace")
    joined = bytearray()
    # Behind a delimiter the first character set is there again (PS3.5 6.1.2.5.3).
    for part in re.split(r"([\\^=])" if vr == "PN" else r"(\\)", value):
        encoded = _encode_part(part, encodings)
        if encoded is None:
            return None
        joined += encoded
    return bytes(joined) if decode(bytes(joined), vr, encodings, len(value)) == value else None


def _encode_part(text: str, encodings: list[str]) -> bytes | None:
    if text.isascii():
        return text.encode("ascii")
    for number, codec in enumerate(encodings):
        if codec == default_encoding:
            continue  # the default repertoire is ASCII
        try:
            encoded = text.encode(codec)
        except UnicodeEncodeError:
            continue
        if codec in _KEEPS_ESCAPE:  # back to the Roman letters of the first: those of JIS X 0201, or ASCII
            return encoded.replace(b"\x1b(B", b"\x1b(J") if encodings[0] == "shift_jis" else encoded
        if codec == "shift_jis" and len(encoded) != len(text):
            continue  # of JIS X 0201 only, which has no kanji
        if number == 0 and codec not in _MULTI_BYTE_WITH_EXTENSIONS:
            return encoded
        if codec in _CODES:
            return _CODES[codec] + encoded
    return None


def _decode(value: bytes, encodings: Sequence[str], delimiters: set[int]) -> str:
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


def _clean(text: str, length_max: int) -> str:
    # ESC sequences of ISO 2022 are gone by now; what is left of control characters is an accident or an attack.
    return _CONTROL.sub(" ", text).strip()[:length_max].rstrip()
