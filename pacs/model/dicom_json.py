"""A data set as DICOM JSON (PS3.18 F), read in windows: a header of some kilobytes of an object of any size.

Long values are not read: each is told by a URI, and where it lies is kept in `bulk`, so that it can be given byte by
byte. Text comes out in Unicode whatever character set it is stored in. What cannot be read in a sequence leaves that
sequence empty, as the object must be found all the same.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pacs.errors import CannotUnderstand
from pacs.model import text
from pacs.model.attributes import SPECIFIC_CHARACTER_SET
from pacs.model.dataset import (
    DEPTH_MAX,
    IMPLICIT,
    ITEM,
    ITEM_DELIMITATION,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED,
    Encoding,
    encoding_found,
    encoding_of,
    read_header,
)
from pacs.model.pieces import swapped
from pacs.model.recode import WORD_SIZE_BYTES
from pacs.model.representation import Facts, representation_of

#: Longer values are told by a URI [bytes]: binary ones, and all others.
INLINE_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX = 1024, 65536
_WINDOW_SIZE_BYTES = 1 << 16
_ELEMENTS_MAX = 2_000_000

_BINARY = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN"])
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_PIXELS = frozenset([PIXEL_DATA, 0x7FE00008, 0x7FE00009])
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

ReadAt = Callable[[int, int], bytes]
Json = dict[str, Any]


class Window:
    """The bytes of a data set, read in windows."""

    def __init__(self, read_at: ReadAt, size_bytes: int) -> None:
        self.read_at, self.size_bytes = read_at, size_bytes
        self._start, self._data = 0, b""

    @classmethod
    def of(cls, dataset: bytes) -> Window:
        """Of a data set that is in memory."""
        return cls(lambda offset, size: dataset[offset : offset + size], len(dataset))

    def take(self, at: int, size: int) -> bytes:
        """Some bytes. Raise CannotUnderstand if there are not as many."""
        if at + size > self.size_bytes:
            raise CannotUnderstand("The data set is cut short in the middle of an element.")
        if not (self._start <= at and at + size <= self._start + len(self._data)):
            self._start = at
            self._data = self.read_at(at, min(max(size, _WINDOW_SIZE_BYTES), self.size_bytes - at))
        return self._data[at - self._start : at - self._start + size]

    def glance(self, at: int, size: int) -> bytes:
        """Some bytes, which nothing follows that is of interest: no window is read for them."""
        if self._start <= at and at + size <= self._start + len(self._data):
            return self.take(at, size)
        if at + size > self.size_bytes:
            raise CannotUnderstand("The data set is cut short in the middle of an element.")
        return self.read_at(at, size)

    def peek(self, at: int, size: int) -> bytes:
        """Some bytes, fewer at the end."""
        return self.take(at, max(0, min(size, self.size_bytes - at)))


@dataclass(frozen=True)
class Located:
    """A value that is not in the JSON: where it lies in the data set [bytes]. Of undefined length: encapsulated."""

    tag: int
    vr: str
    offset: int
    length: int
    endian: str
    #: Where the fragments of encapsulated pixel data lie, the offset table first: (offset, length) [bytes].
    fragments: tuple[tuple[int, int], ...] = ()

    @property
    def is_encapsulated(self) -> bool:
        """Whether it is pixel data in fragments."""
        return self.length == UNDEFINED

    @property
    def word_size_bytes(self) -> int:
        """Of how many bytes a word is that is to be turned round; 1 if none is."""
        return WORD_SIZE_BYTES.get(self.vr, 1) if self.endian == ">" else 1


@dataclass
class Described:
    """A data set's JSON, and what is not in it: path → where it lies. A path is tags and items' numbers, from 1:
    `00420011`, `00081115/1/00081199`."""

    json: Json
    bulk: dict[str, Located]


def describe(window: Window, transfer_syntax_uid: str, bulk_uri: str = "") -> Described:
    """A data set's JSON. bulk_uri stands before the path of each value that is not in it.

    Raise CannotUnderstand if it cannot be read at all.
    """
    encoding = encoding_of(transfer_syntax_uid)
    encoding = encoding_found(memoryview(window.peek(0, 8).ljust(8, b"\0")), encoding)
    reader = _Reader(window, bulk_uri)
    found, _at = reader.data_set(0, window.size_bytes, encoding, Facts(), ["iso8859"], "", 0)
    return Described(found, reader.bulk)


class _Reader:
    def __init__(self, window: Window, bulk_uri: str) -> None:
        self.window, self.bulk_uri = window, bulk_uri
        self.bulk: dict[str, Located] = {}
        self._elements = 0

    def data_set(
        self, at: int, end: int, encoding: Encoding, facts: Facts, encodings: Sequence[str], path: str, depth: int
    ) -> tuple[Json, int]:
        """The elements from `at` to `end`, or to the item's delimiter; and where that is over."""
        found: Json = {}
        if depth > DEPTH_MAX:
            raise CannotUnderstand(f"Sequences are nested deeper than {DEPTH_MAX} levels.")
        while at < end:
            start = self.window.peek(at, 12)
            if not start.strip(b"\0"):  # the filling of a sender's last block
                return found, end
            if len(start) < 8:
                raise CannotUnderstand("The data set is cut short in the middle of an element.")
            header = read_header(memoryview(start), 0, encoding)
            if header is None:
                raise CannotUnderstand("The data set is cut short in the middle of an element.")
            tag, header_size, length, nested = header
            if tag == ITEM_DELIMITATION:
                return found, at + 8
            self._count()
            vr = start[4:6].decode() if encoding.explicit else representation_of(tag, facts)
            if vr == "UN" and length != UNDEFINED:  # known all the same, as implicit VR has it (PS3.5 6.2.2)
                vr = representation_of(tag, facts) if tag != PIXEL_DATA else vr
                nested = IMPLICIT
            at += header_size
            value, at = self._element(tag, vr, at, length, nested, facts, encodings, path, depth)
            if tag == SPECIFIC_CHARACTER_SET and value.get("Value"):
                encodings = text.encodings_of("\\".join(each or "" for each in value["Value"]).encode())
                value["Value"] = ["ISO_IR 192"]  # what the JSON is in
            if tag & 0xFFFF:  # no group lengths
                found[f"{tag:08X}"] = value
        return found, at

    def _count(self) -> None:
        self._elements += 1
        if self._elements > _ELEMENTS_MAX:
            raise CannotUnderstand("The data set has too many elements to be described.")

    def _element(
        self, tag: int, vr: str, at: int, length: int, nested: Encoding, facts: Facts, encodings: Sequence[str],
        path: str, depth: int,
    ) -> tuple[Json, int]:  # fmt: skip
        here = f"{path}{tag:08X}"
        if length == UNDEFINED and tag in _PIXELS:
            fragments, after = self._fragments(at)
            self.bulk[here] = Located(tag, vr, at, UNDEFINED, nested.endian, fragments)
            return self._uri(vr, here), after
        if length == UNDEFINED or vr == "SQ":
            inner = IMPLICIT if vr == "UN" else nested
            return self._sequence(at, length, inner, facts, encodings, here, depth)
        if at + length > self.window.size_bytes:
            raise CannotUnderstand(f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is cut short.")
        is_long = length > (INLINE_SIZE_BYTES_MAX if vr in _BINARY else VALUE_SIZE_BYTES_MAX) or tag in _PIXELS
        if is_long and length:
            self.bulk[here] = Located(tag, vr, at, length, nested.endian)
            return self._uri(vr, here), at + length
        raw = self.window.take(at, length)
        facts.note(tag, raw, nested.endian)
        return json_value(vr, raw, nested.endian, encodings), at + length

    def _uri(self, vr: str, path: str) -> Json:
        return {"vr": vr, "BulkDataURI": f"{self.bulk_uri}{path}"}

    def _fragments(self, at: int) -> tuple[tuple[tuple[int, int], ...], int]:
        """Where each fragment lies, and where what comes behind them begins. Their bytes are not read."""
        found: list[tuple[int, int]] = []
        while True:
            group, element, length = struct.unpack("<HHL", self.window.glance(at, 8))
            at += 8
            if (group, element) == (SEQUENCE_DELIMITATION >> 16, SEQUENCE_DELIMITATION & 0xFFFF):
                return tuple(found), at
            if (group, element) != (ITEM >> 16, ITEM & 0xFFFF) or length == UNDEFINED:
                raise CannotUnderstand("The fragments of the pixel data cannot be read.")
            self._count()
            found.append((at, length))
            at += length

    def _sequence(
        self, at: int, length: int, encoding: Encoding, facts: Facts, encodings: Sequence[str], path: str, depth: int
    ) -> tuple[Json, int]:
        if length != UNDEFINED:
            before = dict(self.bulk)
            try:
                items, _at = self._items(at, at + length, encoding, facts, encodings, path, depth)
            except (CannotUnderstand, struct.error):  # its length says where all else goes on
                self.bulk, items = before, []
            at += length
        else:
            items, at = self._items(at, self.window.size_bytes, encoding, facts, encodings, path, depth)
        return ({"vr": "SQ", "Value": items} if items else {"vr": "SQ"}), at

    def _items(
        self, at: int, end: int, encoding: Encoding, facts: Facts, encodings: Sequence[str], path: str, depth: int
    ) -> tuple[list[Json], int]:
        items: list[Json] = []
        while at < end:
            start = memoryview(self.window.take(at, 8))
            tag, length = encoding.tag(start, 0), encoding.length(start, 4)
            at += 8
            if tag == SEQUENCE_DELIMITATION:
                break
            if tag != ITEM:
                raise CannotUnderstand(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) stands where a sequence's item should.")
            self._count()
            below = f"{path}/{len(items) + 1}/"
            until = end if length == UNDEFINED else at + length
            if until > end:
                raise CannotUnderstand("An item is longer than its sequence.")
            item, at = self.data_set(at, until, encoding, facts.copy(), encodings, below, depth + 1)
            items.append(item)
        return items, at


def json_value(vr: str, raw: bytes, endian: str, encodings: Sequence[str]) -> Json:
    """An element of a raw value (PS3.18 F.2.2)."""
    if not raw:
        return {"vr": vr}
    if vr in _BINARY or not (vr in _NUMBERS or vr in _TEXTS or vr == "AT"):
        word = WORD_SIZE_BYTES.get(vr, 1)
        if endian == ">" and word > 1 and len(raw) % word == 0:
            raw = swapped(raw, word)
        return {"vr": vr, "InlineBinary": base64.b64encode(raw).decode()}
    if vr == "AT":
        pairs = struct.unpack(f"{endian}{len(raw) // 4 * 2}H", raw[: len(raw) // 4 * 4])
        values: list[Any] = [
            f"{group:04X}{element:04X}" for group, element in zip(pairs[::2], pairs[1::2], strict=True)
        ]
    elif vr in _NUMBERS:
        size = struct.calcsize("<" + _NUMBERS[vr])
        values = list(struct.unpack(f"{endian}{len(raw) // size}{_NUMBERS[vr]}", raw[: len(raw) // size * size]))
        if vr in ("FL", "FD"):
            values = [_finite(each) for each in values]
    else:
        return text_element(vr, text.decode_values(raw, vr, encodings))
    return {"vr": vr, "Value": values} if values else {"vr": vr}


_TEXTS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)


def text_element(vr: str, texts: Sequence[str]) -> Json:
    """An element of texts, each a value: names in their groups, numbers as numbers where they are ones."""
    values = [_text(vr, each) if each else None for each in texts]
    while values and values[-1] is None:
        values.pop()
    return {"vr": vr, "Value": values} if values else {"vr": vr}


def _text(vr: str, value: str) -> Any:
    if vr == "PN":
        groups = {name: group for name, group in zip(_GROUPS, value.split("="), strict=False) if group}
        return groups or None
    if vr == "IS":
        return int(value) if value.lstrip("+-").isdecimal() and value.isascii() and len(value) < 16 else value
    if vr == "DS":
        try:
            number = float(value)
        except ValueError:
            return value
        if not math.isfinite(number):
            return value
        return int(number) if value.lstrip("+-").isdecimal() else number
    return value


def _finite(number: float) -> float | str:
    """JSON has no other numbers: those are strings (PS3.18 F.2.4)."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
