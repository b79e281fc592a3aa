"""Reading a data set for what the index needs, as it arrives, without decoding the rest.

The scanner is fed with pieces of any size and keeps no more of them than an element's header or a value that is asked
for: an object of any size is read in constant memory. It walks the data elements of an encoded data set (PS3.5
chapter 7) from the first byte to the last, keeps the raw values of the attributes that are asked for and skips all
others by their length, pixel data too, so its cost is the number of elements, not their size. It proves that the data
set is whole: every length lies inside the data, every sequence and item of undefined length is closed, and the last
element ends with the last byte.

Of a sequence that is asked for it keeps the items' bytes as they are; pacs/model/items.py reads them. It does not look
into other sequences of defined length, check value representations, or decode pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pacs.errors import CannotUnderstand

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
#: Deflated Explicit VR Little Endian, JPIP Referenced Deflate, JPIP HTJ2K Referenced Deflate (PS3.5 A.5, A.7, A.10).
DEFLATED = frozenset(["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

#: The deepest nesting that is taken. Real objects stay below 20; readers that recurse die at about 1000.
DEPTH_MAX = 64

#: The most that a deflated data set may grow to [bytes]. A deflate bomb reaches 1000 times its size.
INFLATED_SIZE_BYTES_MAX = 16 << 30

#: The most elements that a deflated data set may have: so many, and so many more for each of its bytes. An object of
#: a million small elements is read in a second; a deflate bomb has a thousand times as many for its size.
DEFLATED_ELEMENTS_MAX = 1_000_000
DEFLATED_ELEMENTS_PER_BYTE_MAX = 2

#: The longest value that is kept for the index [bytes]; a longer one counts as empty.
VALUE_SIZE_BYTES_MAX = 64 << 10

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
SHORT_LENGTH_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_KNOWN_VRS = SHORT_LENGTH_VRS | frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


@dataclass(frozen=True)
class Encoding:
    """How the elements of one nesting level are encoded."""

    explicit: bool
    endian: str

    def tag(self, data: memoryview, at: int) -> int:
        group, element = struct.unpack_from(self.endian + "HH", data, at)
        return int(group << 16 | element)

    def length(self, data: memoryview, at: int) -> int:
        return int(struct.unpack_from(self.endian + "L", data, at)[0])


IMPLICIT = Encoding(False, "<")


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """How data sets of a transfer syntax are encoded. All but three are explicit VR little endian (PS3.5 A)."""
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        return IMPLICIT
    return Encoding(True, ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<")


class Scanned(dict[int, bytes]):
    """The raw values that were found, by tag. `nested` says how what is in them is encoded, for those of sequences."""

    def __init__(self, values: dict[int, bytes], nested: dict[int, Encoding]) -> None:
        super().__init__(values)
        self.nested = nested


def scan(data: memoryview | bytes, transfer_syntax_uid: str, tags: Collection[int]) -> Scanned:
    """The raw values of the top-level elements in `tags` that a whole encoded data set has, by tag. See Scanner."""
    scanner = Scanner(transfer_syntax_uid, tags)
    scanner.feed(memoryview(data))
    return scanner.finish()


class Scanner:
    """Scans one encoded data set: bytes as they come over the network, no preamble, no file meta information.

    Where a tag stands twice the last one counts, as in pydicom. `feed` and `finish` raise CannotUnderstand if the data
    set is not whole; after that the scanner is done.
    """

    def __init__(
        self, transfer_syntax_uid: str, tags: Collection[int], inflated_size_bytes_max: int = INFLATED_SIZE_BYTES_MAX
    ) -> None:
        inflating = transfer_syntax_uid in DEFLATED
        self._inflation = _Inflation(self._walk, inflated_size_bytes_max) if inflating else None
        self._elements_max = DEFLATED_ELEMENTS_MAX
        self._walker = _Walker(encoding_of(transfer_syntax_uid), tags)

    def feed(self, data: memoryview) -> None:
        """Take the next bytes."""
        if self._inflation is not None:
            self._elements_max += DEFLATED_ELEMENTS_PER_BYTE_MAX * len(data)
            self._inflation.feed(data)
        else:
            self._walker.feed(data)

    @property
    def elements(self) -> int:
        """How many elements and items were read so far."""
        return self._walker.elements

    @property
    def unneeded_bytes(self) -> int:
        """How many of the bytes that come next are not looked at: of a long value. 0 where it has to inflate them."""
        return 0 if self._inflation is not None else self._walker.unneeded_bytes

    def skip(self, size_bytes: int) -> None:
        """Pass over at most `unneeded_bytes`, as if they had been fed."""
        self._walker.skip(size_bytes)

    def finish(self) -> Scanned:
        """The values found, by tag, when all bytes were fed."""
        if self._inflation is not None:
            self._inflation.finish()
        return self._walker.finish()

    def _walk(self, data: bytes) -> None:
        self._walker.feed(memoryview(data))
        if self._walker.elements > self._elements_max:
            raise CannotUnderstand("The deflated data set has more elements than one of its size can have.")


class _Inflation:
    """Inflates a raw deflate stream (PS3.5 A.5) in steps, whatever it grows to."""

    def __init__(self, give: Callable[[bytes], None], size_bytes_max: int) -> None:
        self.give = give
        self.left = size_bytes_max
        self.stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self.trailer_bytes = 0

    def feed(self, data: memoryview | bytes) -> None:
        while len(data) and not self.stream.eof:
            try:
                inflated = self.stream.decompress(data, _INFLATE_STEP_BYTES)
            except zlib.error as error:
                raise CannotUnderstand(f"The deflated data set cannot be inflated: {error}.") from error
            data = b"" if self.stream.eof else self.stream.unconsumed_tail
            self.left -= len(inflated)
            if self.left < 0:
                raise CannotUnderstand("The deflated data set is larger than this archive takes.")
            self.give(inflated)
            if self.stream.eof:
                data = self.stream.unused_data
        self.trailer_bytes += len(data)
        if self.trailer_bytes > _DEFLATE_TRAILER_BYTES_MAX:
            raise CannotUnderstand("There are bytes behind the end of the deflated data set.")

    def finish(self) -> None:
        if not self.stream.eof:
            raise CannotUnderstand("The deflated data set is cut short.")


_MORE = -1  # a step that needs more bytes than there are yet


class _Walker:
    """Walks elements as their bytes come. A step parses one header and says where the next begins, often far ahead."""

    def __init__(self, encoding: Encoding, tags: Collection[int]) -> None:
        self.encoding = encoding
        self.tags = tags
        self.values: dict[int, bytes] = {}
        self._nested: dict[int, Encoding] = {}  # how the items are encoded of each that was kept
        self._kept: bytearray | None = None  # the items of a wanted sequence of undefined length that is under way
        self._kept_tag = 0
        self.elements = 0
        self._is_first = True
        self._pending = b""  # the start of a header or of a wanted value
        self._skip_bytes = 0  # of the element that is under way
        self._element = (0, 0)  # its tag and length
        self._padding_bytes = 0
        # Sequences of undefined length that are open, as (encoding, whether items come next). A stack of our own, as
        # a hostile data set may nest deeper than Python recurses.
        self._levels: list[tuple[Encoding, bool]] = []
        self._in_fragments = False

    def feed(self, data: memoryview) -> None:
        """Take the next bytes."""
        if self._skip_bytes >= len(data):
            self._skip_bytes -= len(data)
            return
        data = data[self._skip_bytes :]
        self._skip_bytes = 0
        if self._pending:
            data, self._pending = memoryview(self._pending + bytes(data)), b""
        at, end = 0, len(data)
        while at < end:
            self.elements += 1
            if self._padding_bytes:
                at = self._step_padding(data, at)
            elif self._levels:
                next_at = self._step_nested(data, at)
                at = next_at if self._kept is None or next_at <= _MORE else self._keep(data, at, next_at)
            else:
                at = self._step(data, at)
            if at <= _MORE:
                self._pending = bytes(data[_MORE - at :])
                return
        self._skip_bytes = at - end

    @property
    def unneeded_bytes(self) -> int:
        """How many of the next bytes belong to a value that is not wanted."""
        return self._skip_bytes

    def skip(self, size_bytes: int) -> None:
        """Pass over bytes of it."""
        assert size_bytes <= self._skip_bytes
        self._skip_bytes -= size_bytes

    def _keep(self, data: memoryview, at: int, next_at: int) -> int:
        """Keep what a step inside a wanted sequence has passed; give where the next begins."""
        assert self._kept is not None
        if len(self._kept) + next_at - at > VALUE_SIZE_BYTES_MAX:
            self._kept = None  # counts as empty
            return next_at
        if next_at > len(data):
            return _more(at)
        self._kept += data[at:next_at]
        if not self._levels:
            self.values[self._kept_tag], self._kept = bytes(self._kept), None
        return next_at

    def finish(self) -> Scanned:
        """The values, if every element was closed."""
        tag, length = self._element
        if self._skip_bytes:
            raise CannotUnderstand(
                f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is cut short: {length} bytes said, "
                f"{length - self._skip_bytes} there."
            )
        if self._pending or self._levels or self._padding_bytes % 2:
            raise CannotUnderstand("The data set is cut short in the middle of an element.")
        return Scanned(self.values, self._nested)

    def _step(self, data: memoryview, at: int) -> int:
        """An element of the data set itself."""
        if len(data) - at < 8:
            # Too short for a header: zeros at the very end are padding, which only finish can tell.
            return _more(at) if any(data[at:]) or len(data) - at < 2 else self._step_padding(data, at)
        if self._is_first:
            self._is_first = False
            self.encoding = encoding_found(data[at : at + 8], self.encoding)
        if not data[at] and not data[at + 1] and not any(data[at : at + 8]):
            return self._step_padding(data, at)
        header = read_header(data, at, self.encoding)
        if header is None:
            return _more(at)
        tag, start, length, nested = header
        # A private tag's first group is odd and at least 9; groups 0 and 2 are not of a data set (PS3.5 7.1), and
        # items and delimiters only stand in sequences.
        if tag >> 16 < 0x0004 or tag >> 16 == 0xFFFE:
            raise CannotUnderstand(f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) does not belong in a data set.")
        if length == UNDEFINED:
            self._levels.append((nested, True))
            self._in_fragments = tag == PIXEL_DATA
            if tag in self.tags and tag != PIXEL_DATA:
                self._kept, self._kept_tag, self._nested[tag] = bytearray(), tag, nested
            return start
        self._element = (tag, length)
        if tag in self.tags and length <= VALUE_SIZE_BYTES_MAX:
            if start + length > len(data):
                return _more(at)
            self.values[tag] = bytes(data[start : start + length])
            self._nested[tag] = nested
        return start + length

    def _step_padding(self, data: memoryview, at: int) -> int:
        """Zeros to the end: some devices fill their last block up. An odd number of them is a cut header."""
        self._padding_bytes += len(data) - at
        if any(data[at:]) or self._padding_bytes > PADDING_BYTES_MAX:
            raise CannotUnderstand("Element (0000,0000) does not belong in a data set.")
        return len(data)

    def _step_nested(self, data: memoryview, at: int) -> int:
        encoding, of_items = self._levels[-1]
        if len(data) - at < 8:
            return _more(at)
        return self._step_item(data, at, encoding) if of_items else self._step_in_item(data, at, encoding)

    def _step_item(self, data: memoryview, at: int, encoding: Encoding) -> int:
        tag, length = encoding.tag(data, at), encoding.length(data, at + 4)
        if tag == SEQUENCE_DELIMITATION:
            self._levels.pop()
        elif tag != ITEM:
            raise CannotUnderstand(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) stands where a sequence's item should.")
        elif length != UNDEFINED:
            self._element = (tag, length)
            return at + 8 + length
        elif self._in_fragments and len(self._levels) == 1:
            raise CannotUnderstand("A fragment of the pixel data has no length.")
        else:
            self._levels.append((encoding, False))
            if len(self._levels) > 2 * DEPTH_MAX:
                raise CannotUnderstand(f"Sequences are nested deeper than {DEPTH_MAX} levels.")
        return at + 8

    def _step_in_item(self, data: memoryview, at: int, encoding: Encoding) -> int:
        header = read_header(data, at, encoding)
        if header is None:
            return _more(at)
        tag, start, length, nested = header
        if tag == ITEM_DELIMITATION:
            self._levels.pop()
            return start
        if length == UNDEFINED:
            self._levels.append((nested, True))
            return start
        self._element = (tag, length)
        return start + length


def _more(at: int) -> int:
    """What a step gives that needs more bytes: where it began, as a negative number."""
    return _MORE - at


def read_header(data: memoryview, at: int, encoding: Encoding) -> tuple[int, int, int, Encoding] | None:
    """An element's tag, where its value starts, its length, and how what it nests is encoded; None: more bytes."""
    tag = encoding.tag(data, at)
    if not encoding.explicit or tag >> 16 == 0xFFFE:
        return tag, at + 8, encoding.length(data, at + 4), encoding
    vr = bytes(data[at + 4 : at + 6])
    if vr in SHORT_LENGTH_VRS:
        return tag, at + 8, int(struct.unpack_from(encoding.endian + "H", data, at + 6)[0]), encoding
    if not (vr.isalpha() and vr.isupper()):
        raise CannotUnderstand(
            f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) has no value representation. "
            "Is the data set in the transfer syntax that was negotiated?"
        )
    if len(data) - at < 12:
        return None
    return tag, at + 12, encoding.length(data, at + 8), IMPLICIT if vr == b"UN" else encoding  # PS3.5 6.2.2 note 4


def encoding_found(data: memoryview, said: Encoding) -> Encoding:
    """How the data are encoded, if their first element shows that it is not as the transfer syntax says.

    Devices that write implicit where they said explicit, and the other way round, exist; pydicom and DCMTK read
    them, and so do we. The bytes stay as they came.
    """
    if said.endian == ">":
        return said
    vr = bytes(data[4:6])
    looks_explicit = vr.isalpha() and vr.isupper() and vr in _KNOWN_VRS
    return said if looks_explicit == said.explicit else Encoding(looks_explicit, "<")
