"""Where the frames of an image lie in its data set, so that one is read and no more (PS3.5 8.2, A.4).

Uncompressed ones follow each other. Of encapsulated ones the fragments are known from their items' headers, and which
are a frame's from the Extended Offset Table, the Basic Offset Table, their number, or the markers at their ends.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pacs.errors import CannotUnderstand, NotFound
from pacs.model.dicom_json import Described, Json, Located, Window

#: Attributes of the Image Pixel Module by their tags (PS3.3 C.7.6.3).
PIXEL_MODULE = {
    "SamplesPerPixel": "00280002", "PhotometricInterpretation": "00280004", "PlanarConfiguration": "00280006",
    "Rows": "00280010", "Columns": "00280011", "BitsAllocated": "00280100", "BitsStored": "00280101",
    "HighBit": "00280102", "PixelRepresentation": "00280103",
}  # fmt: skip
_NUMBER_OF_FRAMES = "00280008"
_PIXEL_DATA = ("7FE00010", "7FE00008", "7FE00009")
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = "7FE00001", "7FE00002"
#: Formats with two bytes a pixel when they are not compressed: their chrominance is subsampled (PS3.3 C.7.6.3.1.2).
_SUBSAMPLED = frozenset(["YBR_FULL_422", "YBR_PARTIAL_422"])
#: The end of a JPEG, JPEG-LS or JPEG 2000 stream; behind it a fragment has padding only.
_END_MARKER, _TAIL_SIZE_BYTES = b"\xff\xd9", 10

Pieces = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Frames:
    """The frames of an object: of each where its pieces lie (offset, length) [bytes], and what describes its pixels."""

    pieces: tuple[Pieces, ...]
    pixel_module: dict[str, Any]
    located: Located

    def of(self, number: int) -> Pieces:
        """A frame's pieces; numbers begin at 1. Raise NotFound."""
        if not 1 <= number <= len(self.pieces):
            raise NotFound(f"There is no frame {number}: the object has {len(self.pieces)}.")
        return self.pieces[number - 1]


def first_value(dataset: Json, tag: str, default: Any = None) -> Any:
    """The first value of an element of DICOM JSON."""
    values = dataset.get(tag, {}).get("Value")
    return values[0] if values and values[0] is not None else default


def frames_of(described: Described, window: Window) -> Frames:
    """Where the frames of an object lie. Raise NotFound if it has no pixels, CannotUnderstand if they cannot be told
    apart."""
    located = next((described.bulk[tag] for tag in _PIXEL_DATA if tag in described.bulk), None)
    if located is None:
        raise NotFound("The object has no pixel data.")
    module = {name: first_value(described.json, tag) for name, tag in PIXEL_MODULE.items()}
    module = {name: value for name, value in module.items() if value is not None}
    count = first_value(described.json, _NUMBER_OF_FRAMES, 1)
    if not isinstance(count, int) or count < 1:
        count = 1
    if not located.is_encapsulated:
        return Frames(_native(located, module, count), module, located)
    return Frames(_encapsulated(described, window, located, count), module, located)


def _native(located: Located, module: dict[str, Any], count: int) -> tuple[Pieces, ...]:
    if count == 1:
        return (((located.offset, located.length),),)
    try:
        bits = int(module["Rows"]) * int(module["Columns"]) * int(module["BitsAllocated"])
        bits *= 2 if module.get("PhotometricInterpretation") in _SUBSAMPLED else int(module.get("SamplesPerPixel", 1))
    except (KeyError, ValueError, TypeError):
        raise CannotUnderstand("The object does not say how large its frames are.") from None
    if bits % 8:
        raise CannotUnderstand("Frames of single bits that do not end at a byte are given as a whole only.")
    size = bits // 8
    if size == 0 or count * size > located.length:
        raise CannotUnderstand("The pixel data is shorter than its frames.")
    return tuple(((located.offset + number * size, size),) for number in range(count))


def _encapsulated(described: Described, window: Window, located: Located, count: int) -> tuple[Pieces, ...]:
    if not located.fragments:
        raise CannotUnderstand("The pixel data has no fragments.")
    (table_at, table_size), *fragments = located.fragments
    if count == 1:
        return (tuple(fragments),)
    if len(fragments) == count:
        return _whole(described, window, fragments)
    offsets: tuple[int, ...] = ()
    if table_size and table_size % 4 == 0 and table_size // 4 == count:
        offsets = struct.unpack(f"<{count}L", window.take(table_at, table_size))
    if offsets:
        return _by_offsets(fragments, offsets)
    return _by_markers(window, fragments, count)


def _whole(described: Described, window: Window, fragments: list[tuple[int, int]]) -> tuple[Pieces, ...]:
    """A fragment a frame. The Extended Offset Table's lengths leave out the padding (PS3.5 A.4)."""
    lengths = _table(described, window, _EXTENDED_LENGTHS)
    if len(lengths) != len(fragments):
        return tuple((fragment,) for fragment in fragments)
    pairs = zip(fragments, lengths, strict=True)
    return tuple(((at, length if length <= size else size),) for (at, size), length in pairs)


def _table(described: Described, window: Window, tag: str) -> tuple[int, ...]:
    if tag in described.bulk:
        raw = window.take(described.bulk[tag].offset, described.bulk[tag].length)
    else:
        raw = base64.b64decode(described.json.get(tag, {}).get("InlineBinary", ""))
    return struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8])


def _by_offsets(fragments: list[tuple[int, int]], offsets: tuple[int, ...]) -> tuple[Pieces, ...]:
    start = fragments[0][0] - 8
    by_start = {at - 8 - start: number for number, (at, _size) in enumerate(fragments)}
    if any(offset not in by_start for offset in offsets) or list(offsets) != sorted(set(offsets)):
        raise CannotUnderstand("The offset table of the pixel data does not fit its fragments.")
    firsts = [*(by_start[offset] for offset in offsets), len(fragments)]
    return tuple(tuple(fragments[first:after]) for first, after in pairwise(firsts))


def _by_markers(window: Window, fragments: list[tuple[int, int]], count: int) -> tuple[Pieces, ...]:
    found: list[Pieces] = []
    waiting: list[tuple[int, int]] = []
    for at, size in fragments:
        waiting.append((at, size))
        tail = min(size, _TAIL_SIZE_BYTES)
        if _END_MARKER in window.glance(at + size - tail, tail):
            found.append(tuple(waiting))
            waiting = []
    if waiting or len(found) != count:
        raise CannotUnderstand("It cannot be told which fragments of the pixel data are which frame's.")
    return tuple(found)
