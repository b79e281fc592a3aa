"""Reading a data set for what the index needs, without decoding the rest.

The scanner walks the data elements of an encoded data set (PS3.5 chapter 7) from the first byte to the last. It keeps
the raw values of the attributes that are asked for and skips all others by their length, pixel data too, so its cost
is the number of elements, not their size. It proves that the data set is whole: every length lies inside the data,
every sequence and item of undefined length is closed, and the last element ends with the last byte.

It does not look into sequences of defined length, check value representations, or decode pixels.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Collection
from dataclasses import dataclass

from pacs.errors import CannotUnderstand

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
#: Deflated Explicit VR Little Endian, JPIP Referenced Deflate, JPIP HTJ2K Referenced Deflate (PS3.5 A.5, A.7, A.10).
DEFLATED = frozenset(["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

#: The deepest nesting that is taken. Real objects stay below 20; readers that recurse die at about 1000.
DEPTH_MAX = 64

#: The most that a deflated data set may grow to [bytes]. A deflate bomb reaches 1000 times its size. It is held in
#: memory, so only one at a time is (_INFLATING).
INFLATED_SIZE_BYTES_MAX = 1 << 30
_INFLATING = threading.Lock()

#: The most zeros that are taken for the filling of a sender's last block [bytes].
PADDING_BYTES_MAX = 1 << 16

#: What writers leave behind a deflate stream: its checksum and length as in gzip, and padding [bytes].
_DEFLATE_TRAILER_BYTES_MAX = 16
_INFLATE_STEP_BYTES = 1 << 15

UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010
ITEM = 0xFFFEE000
ITEM_DELIMITATION = 0xFFFEE00D
SEQUENCE_DELIMITATION = 0xFFFEE0DD

# Value representations with a 4-byte length, PS3.5 Table 7.1-1. Unknown ones have it too (PS3.5 6.2.2 note).
_SHORT_LENGTH_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_KNOWN_VRS = _SHORT_LENGTH_VRS | frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


@dataclass(frozen=True)
class _Encoding:
    """How the elements of one nesting level are encoded."""

    explicit: bool
    endian: str

    def tag(self, data: memoryview, at: int) -> int:
        group, element = struct.unpack_from(self.endian + "HH", data, at)
        return int(group << 16 | element)

    def length(self, data: memoryview, at: int) -> int:
        return int(struct.unpack_from(self.endian + "L", data, at)[0])


_IMPLICIT = _Encoding(False, "<")


def encoding_of(transfer_syntax_uid: str) -> _Encoding:
    """How data sets of a transfer syntax are encoded. All but three are explicit VR little endian (PS3.5 A)."""
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        return _IMPLICIT
    return _Encoding(True, ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<")


def inflate(data: memoryview | bytes, size_bytes_max: int = INFLATED_SIZE_BYTES_MAX) -> bytearray:
    """The data set that a deflated one stands for (PS3.5 A.5: raw deflate).

    Raise CannotUnderstand if the stream is broken, cut short, or larger than size_bytes_max when inflated.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated, view = bytearray(), memoryview(data)
    try:
        at = 0
        while at < len(view) and not stream.eof:
            inflated += stream.decompress(view[at : at + _INFLATE_STEP_BYTES])
            at += _INFLATE_STEP_BYTES
            if len(inflated) > size_bytes_max:
                raise CannotUnderstand("The deflated data set is larger than this archive takes.")
    except zlib.error as error:
        raise CannotUnderstand(f"The deflated data set cannot be inflated: {error}.") from error
    if not stream.eof:
        raise CannotUnderstand("The deflated data set is cut short.")
    if len(stream.unused_data) + len(view[at:]) > _DEFLATE_TRAILER_BYTES_MAX:
        raise CannotUnderstand("There are bytes behind the end of the deflated data set.")
    return inflated


def scan(data: memoryview | bytes, transfer_syntax_uid: str, tags: Collection[int]) -> dict[int, bytes]:
    """The raw values of the top-level elements in `tags` that an encoded data set has, by tag.

    The data are bytes as they came over the network: no preamble, no file meta information. Where a tag stands twice
    the last one counts, as in pydicom. Raise CannotUnderstand if the data set is not whole.
    """
    if transfer_syntax_uid in DEFLATED:
        with _INFLATING:
            return _scan(memoryview(inflate(data)), transfer_syntax_uid, tags)
    return _scan(memoryview(data), transfer_syntax_uid, tags)


def _scan(view: memoryview, transfer_syntax_uid: str, tags: Collection[int]) -> dict[int, bytes]:
    try:
        return _Scanner(view, _encoding_found(view, encoding_of(transfer_syntax_uid)), tags).run()
    except struct.error:
        raise CannotUnderstand("The data set is cut short in the middle of an element.") from None


def _encoding_found(data: memoryview, said: _Encoding) -> _Encoding:
    """How the data are encoded, if their first element shows that it is not as the transfer syntax says.

    Devices that write implicit where they said explicit, and the other way round, exist; pydicom and DCMTK read
    them, and so do we. The bytes stay as they came.
    """
    if said.endian == ">" or len(data) < 8:
        return said
    vr = bytes(data[4:6])
    looks_explicit = vr.isalpha() and vr.isupper() and vr in _KNOWN_VRS
    return said if looks_explicit == said.explicit else _Encoding(looks_explicit, "<")


class _Scanner:
    def __init__(self, data: memoryview, encoding: _Encoding, tags: Collection[int]) -> None:
        self.data = data
        self.end = len(data)
        self.encoding = encoding
        self.tags = tags
        self.values: dict[int, bytes] = {}

    def run(self) -> dict[int, bytes]:
        at = 0
        while at < self.end:
            if not self.data[at] and self._is_padding(at):
                break
            tag, start, length = self._element_header(at, self.encoding)
            # A private tag's first group is odd and at least 9; groups 0 and 2 are not of a data set (PS3.5 7.1), and
            # items and delimiters only stand in sequences.
            if tag >> 16 < 0x0004 or tag >> 16 == 0xFFFE:
                raise CannotUnderstand(f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) does not belong in a data set.")
            if length == UNDEFINED:
                at = self._skip_undefined(tag, start, self._nested_encoding)
                continue
            at = start + length
            if at > self.end:
                raise CannotUnderstand(
                    f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is cut short: {length} bytes said, "
                    f"{self.end - start} there."
                )
            if tag in self.tags:
                self.values[tag] = bytes(self.data[start:at])
        return self.values

    def _is_padding(self, at: int) -> bool:
        """Whether only zeros follow: some devices fill their last block up. An odd number of them is a cut header."""
        size_bytes = self.end - at
        return size_bytes % 2 == 0 and size_bytes <= PADDING_BYTES_MAX and not any(self.data[at:])

    def _element_header(self, at: int, encoding: _Encoding) -> tuple[int, int, int]:
        """Tag, where the value starts, and its length. What its undefined length nests is in _nested_encoding."""
        tag = encoding.tag(self.data, at)
        self._nested_encoding = encoding
        if not encoding.explicit or tag >> 16 == 0xFFFE:
            return tag, at + 8, encoding.length(self.data, at + 4)
        vr = bytes(self.data[at + 4 : at + 6])
        if vr in _SHORT_LENGTH_VRS:
            return tag, at + 8, int(struct.unpack_from(encoding.endian + "H", self.data, at + 6)[0])
        if not (vr.isalpha() and vr.isupper()):
            raise CannotUnderstand(
                f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) has no value representation. "
                "Is the data set in the transfer syntax that was negotiated?"
            )
        if vr == b"UN":
            self._nested_encoding = _IMPLICIT  # PS3.5 6.2.2 note 4
        return tag, at + 12, encoding.length(self.data, at + 8)

    def _skip_undefined(self, tag: int, at: int, encoding: _Encoding) -> int:
        """Where an element of undefined length ends: a sequence (PS3.5 7.5) or fragments (PS3.5 A.4).

        Walks with a stack of its own, as a hostile data set may nest deeper than Python recurses. Each entry is the
        encoding of a level's elements, or None for a level of items.
        """
        levels: list[tuple[_Encoding, bool]] = [(encoding, True)]
        while levels:
            encoding, of_items = levels[-1]
            if of_items:
                at = self._next_item(at, encoding, levels, fragments=tag == PIXEL_DATA and len(levels) == 1)
            else:
                at = self._next_nested_element(at, encoding, levels)
        return at

    def _next_item(self, at: int, encoding: _Encoding, levels: list[tuple[_Encoding, bool]], fragments: bool) -> int:
        tag = encoding.tag(self.data, at)
        length = encoding.length(self.data, at + 4)
        at += 8
        if tag == SEQUENCE_DELIMITATION:
            levels.pop()
        elif tag != ITEM:
            raise CannotUnderstand(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) stands where a sequence's item should.")
        elif length != UNDEFINED:
            at += length
        elif fragments:
            raise CannotUnderstand("A fragment of the pixel data has no length.")
        else:
            levels.append((encoding, False))
            if len(levels) > 2 * DEPTH_MAX:
                raise CannotUnderstand(f"Sequences are nested deeper than {DEPTH_MAX} levels.")
        if at > self.end:
            raise CannotUnderstand("An item of a sequence is cut short.")
        return at

    def _next_nested_element(self, at: int, encoding: _Encoding, levels: list[tuple[_Encoding, bool]]) -> int:
        tag, start, length = self._element_header(at, encoding)
        if tag == ITEM_DELIMITATION:
            levels.pop()
            return start
        if length == UNDEFINED:
            levels.append((self._nested_encoding, True))
            return start
        if start + length > self.end:
            raise CannotUnderstand("An element in a sequence is cut short.")
        return start + length
