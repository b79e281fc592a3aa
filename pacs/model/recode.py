"""Re-encoding a data set as it streams by: into another transfer syntax, with some of its elements replaced.

Values stay the bytes they were (turned round between little and big endian); headers are written anew. Nothing is
interpreted that need not be: what a device wrote that its value representation does not allow passes through. Memory
is bounded: values pass in pieces, sequences are written with undefined length. Group lengths are left out, as they
would no longer be true (PS3.5 7.2), and so is padding behind the last element.

Pixels are not decoded here: encapsulated pixel data pass from a transfer syntax to itself only, or are replaced as a
whole (pacs/model/codec.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pacs.errors import CannotUnderstand
from pacs.model.dataset import (
    DEFLATED,
    DEPTH_MAX,
    EXPLICIT_VR_LITTLE_ENDIAN,
    ITEM,
    ITEM_DELIMITATION,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    SHORT_LENGTH_VRS,
    UNDEFINED,
    Encoding,
    encoding_found,
    encoding_of,
)
from pacs.model.pieces import Source, deflated, gathered, inflated, swapped
from pacs.model.representation import Facts, representation_of

_SHORT_VALUE_SIZE_BYTES_MAX = 0xFFFE
_NULL_PADDED = frozenset(["UI", "OB", "UN"])
_IMPLICIT = Encoding(False, "<")
_EXPLICIT = Encoding(True, "<")

#: VR → bytes of a word (PS3.5 Table 6.2-1). OB and UN have no byte order: UN is little endian always (PS3.5 6.2.2).
WORD_SIZE_BYTES = {
    **dict.fromkeys(("US", "SS", "OW", "AT"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OF", "OL"), 4),
    **dict.fromkeys(("FD", "OD", "SV", "UV", "OV"), 8),
}


@dataclass(frozen=True)
class Element:
    """A top-level element to be written in another's place: its value as explicit VR little endian has it.

    A sequence's value is its encoded items. Text is in the data set's own character set: whoever replaces text sees to
    that. `is_encapsulated`: the value is encapsulated pixel data, its offset table and fragments.
    """

    vr: str
    value: bytes
    is_encapsulated: bool = False


#: What is to be changed: tag → the element in its place, None to leave it out. Tags that are not there are put in.
Changes = Mapping[int, Element | None]


def recode(
    pieces: Iterable[bytes | memoryview], source: str, target: str, changes: Changes | None = None
) -> Iterator[bytes]:
    """The bytes of an encoded data set in transfer syntax `source`, re-encoded in `target`, in pieces.

    Raise CannotUnderstand with the reason if it cannot be done: in the middle, if that is where it shows.
    """
    recoded = _Recoder(Source(inflated(pieces) if source in DEFLATED else iter(pieces)), source, target, changes)
    encoded = gathered(recoded.run())
    return deflated(encoded) if target in DEFLATED else encoded


def recode_start(pieces: Iterable[bytes | memoryview], syntax: str, changes: Changes) -> tuple[bytes, int]:
    """The start of a data set with changes in it, up to the last of them, and how long that was before [bytes].

    What follows stays as it is, byte for byte. For transfer syntaxes that are not deflated.
    """
    recoder = _Recoder(Source(iter(pieces)), syntax, syntax, changes)
    start = b"".join(recoder.run(until=max(changes)))
    return start, recoder.source.at


@dataclass(frozen=True)
class _Header:
    tag: int
    vr: str  # empty where it is not said
    length: int
    raw: bytes


class _Recoder:
    def __init__(self, source: Source, source_syntax: str, target_syntax: str, changes: Changes | None) -> None:
        self.source = source
        self.encoding = encoding_found(memoryview(source.peek(8)), encoding_of(source_syntax))
        self.target = encoding_of(target_syntax)
        if source_syntax == target_syntax:
            self.target = self.encoding  # a sender's slip stays what it is
        self.changes = dict(sorted((changes or {}).items()))

    def run(self, until: int | None = None) -> Iterator[bytes]:
        """The re-encoded elements; with `until` no further than the last change's tag."""
        facts = Facts()
        while (header := self._top_header(until)) is not None:
            yield from self._write_changes(facts, header.tag - 1)
            if header.tag in self.changes:
                change = self.changes.pop(header.tag)
                self._skip_element(header)
                if change is not None:
                    yield from self._write_change(header.tag, change, facts)
            else:
                yield from self._write_element(header, self.encoding, facts, 0)
        yield from self._write_changes(facts, UNDEFINED)

    def _top_header(self, until: int | None) -> _Header | None:
        start = self.source.peek(8)
        if not start.strip(b"\0"):  # the end, or a filled last block
            return None
        if len(start) == 8 and until is not None and self.encoding.tag(memoryview(start), 0) > until:
            return None
        return self._read_header(self.encoding)

    def _read_header(self, encoding: Encoding) -> _Header:
        raw = self.source.take(8)
        view = memoryview(raw)
        tag = encoding.tag(view, 0)
        if not encoding.explicit or tag >> 16 == 0xFFFE:
            return _Header(tag, "", encoding.length(view, 4), raw)
        vr = raw[4:6]
        if vr in SHORT_LENGTH_VRS:
            return _Header(tag, vr.decode(), struct.unpack_from(encoding.endian + "H", raw, 6)[0], raw)
        if not (vr.isalpha() and vr.isupper()):
            raise CannotUnderstand(f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) has no value representation.")
        raw += self.source.take(4)
        return _Header(tag, vr.decode(), struct.unpack_from(encoding.endian + "L", raw, 8)[0], raw)

    def _write_element(self, header: _Header, encoding: Encoding, facts: Facts, depth: int) -> Iterator[bytes]:
        """An element in the target's encoding; `encoding` is what it is read in."""
        if header.tag & 0xFFFF == 0:
            self._skip_element(header)
            return
        if encoding == self.target:
            yield header.raw
            yield from self._copy_value(header, encoding)
            return
        vr = header.vr or representation_of(header.tag, facts)
        if header.length == UNDEFINED and vr not in ("SQ", "UN"):
            if header.tag == PIXEL_DATA:
                raise CannotUnderstand("Encapsulated pixel data stay in their own transfer syntax.")
            vr = "SQ"
        if vr == "UN":
            # What UN holds is implicit VR little endian, whatever is around it (PS3.5 6.2.2): it stays as it is.
            yield self._header(header.tag, vr, header.length)
            yield from self._copy_value(header, _IMPLICIT)
        elif vr == "SQ":
            yield self._header(header.tag, vr, UNDEFINED)
            yield from self._write_items(header.length, encoding, facts, depth + 1)
            yield self._item_header(SEQUENCE_DELIMITATION, 0)
        else:
            yield from self._write_value(header, vr, encoding, facts)

    def _write_items(self, length: int, encoding: Encoding, facts: Facts, depth: int) -> Iterator[bytes]:
        if depth > DEPTH_MAX:
            raise CannotUnderstand(f"Sequences are nested deeper than {DEPTH_MAX} levels.")
        end = None if length == UNDEFINED else self.source.at + length
        while end is None or self.source.at < end:
            tag, item_length = self._read_item_header(encoding)
            if tag == SEQUENCE_DELIMITATION:
                if end is None:
                    return
                continue
            yield self._item_header(ITEM, UNDEFINED)
            yield from self._write_item(item_length, encoding, facts.copy(), depth)
            yield self._item_header(ITEM_DELIMITATION, 0)
        self._require_at(end)

    def _write_item(self, length: int, encoding: Encoding, facts: Facts, depth: int) -> Iterator[bytes]:
        end = None if length == UNDEFINED else self.source.at + length
        while end is None or self.source.at < end:
            header = self._read_header(encoding)
            if header.tag == ITEM_DELIMITATION:
                if end is None:
                    return
                continue
            yield from self._write_element(header, encoding, facts, depth)
        self._require_at(end)

    def _write_value(self, header: _Header, vr: str, encoding: Encoding, facts: Facts) -> Iterator[bytes]:
        word = WORD_SIZE_BYTES.get(vr, 1) if encoding.endian != self.target.endian else 1
        if header.tag == PIXEL_DATA and encoding.endian != self.target.endian:
            # Writers of big endian do not agree on the order of the words of longer pixels (PS3.5 8.1.1 says 16-bit
            # words, the least significant first; some wrote one 32-bit word), and wrong pixels are worse than none.
            if facts.bits_allocated > 16:
                raise CannotUnderstand("Pixels of more than 16 bits have no agreed order in big endian.")
            word = 2 if facts.bits_allocated > 8 else word
        if self.target.explicit and vr.encode() in SHORT_LENGTH_VRS and header.length > _SHORT_VALUE_SIZE_BYTES_MAX:
            vr, word = "UN", 1  # PS3.5 6.2.2: what is too long for its representation's header
        if header.length % word:
            raise CannotUnderstand(f"({header.tag >> 16:04X},{header.tag & 0xFFFF:04X}) does not hold whole words.")
        yield self._header(header.tag, vr, header.length)
        for piece in self.source.copy(header.length):
            facts.note(header.tag, piece, encoding.endian)
            yield piece if word == 1 else swapped(piece, word)

    # As they are

    def _copy_value(self, header: _Header, encoding: Encoding) -> Iterator[bytes]:
        """A value as it is; one of undefined length with its delimiter."""
        if header.length != UNDEFINED:
            yield from self.source.copy(header.length)
        else:
            yield from self._copy_items(_IMPLICIT if header.vr == "UN" else encoding, 1)

    def _copy_items(self, encoding: Encoding, depth: int) -> Iterator[bytes]:
        if depth > DEPTH_MAX:
            raise CannotUnderstand(f"Sequences are nested deeper than {DEPTH_MAX} levels.")
        while True:
            yield self.source.peek(8)
            tag, length = self._read_item_header(encoding)
            if tag == SEQUENCE_DELIMITATION:
                return
            if length != UNDEFINED:
                yield from self.source.copy(length)
                continue
            while (header := self._read_header(encoding)).tag != ITEM_DELIMITATION:
                yield header.raw
                if header.length != UNDEFINED:
                    yield from self.source.copy(header.length)
                else:
                    yield from self._copy_items(_IMPLICIT if header.vr == "UN" else encoding, depth + 1)
            yield header.raw

    def _skip_element(self, header: _Header) -> None:
        for _ in self._copy_value(header, self.encoding):
            pass

    # What is put in

    def _write_changes(self, facts: Facts, up_to_tag: int) -> Iterator[bytes]:
        """The changes up to a tag that stood nowhere."""
        while self.changes and (tag := next(iter(self.changes))) <= up_to_tag:
            change = self.changes.pop(tag)
            if change is not None:
                yield from self._write_change(tag, change, facts)

    def _write_change(self, tag: int, change: Element, facts: Facts) -> Iterator[bytes]:
        value = change.value + (b"\0" if change.vr in _NULL_PADDED else b" ") * (len(change.value) % 2)
        length = UNDEFINED if change.is_encapsulated else len(value)
        pieces = [header_bytes(_EXPLICIT, tag, change.vr, length), value]
        if change.is_encapsulated:
            pieces.append(struct.pack("<HHL", SEQUENCE_DELIMITATION >> 16, SEQUENCE_DELIMITATION & 0xFFFF, 0))
        written = _Recoder(Source(iter(pieces)), EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, None)
        written.target = self.target
        yield from written._write_element(written._read_header(_EXPLICIT), _EXPLICIT, facts, 0)

    # Headers

    def _header(self, tag: int, vr: str, length: int) -> bytes:
        return header_bytes(self.target, tag, vr, length)

    def _item_header(self, tag: int, length: int) -> bytes:
        return struct.pack(self.target.endian + "HHL", tag >> 16, tag & 0xFFFF, length)

    def _read_item_header(self, encoding: Encoding) -> tuple[int, int]:
        raw = memoryview(self.source.take(8))
        tag = encoding.tag(raw, 0)
        if tag not in (ITEM, SEQUENCE_DELIMITATION):
            raise CannotUnderstand(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) stands where a sequence's item should.")
        return tag, encoding.length(raw, 4)

    def _require_at(self, end: int | None) -> None:
        if end is not None and self.source.at != end:
            raise CannotUnderstand("A sequence is not as long as it says.")


def header_bytes(encoding: Encoding, tag: int, vr: str, length: int) -> bytes:
    """An element's header (PS3.5 7.1)."""
    start = struct.pack(encoding.endian + "HH", tag >> 16, tag & 0xFFFF)
    if not encoding.explicit:
        return start + struct.pack("<L", length)
    if vr.encode() in SHORT_LENGTH_VRS:
        return start + vr.encode() + struct.pack(encoding.endian + "H", length)
    return start + vr.encode() + struct.pack(encoding.endian + "HL", 0, length)
