"""The items of a sequence that the scanner kept, one level deep."""

from __future__ import annotations

import contextlib
import struct

from pacs.errors import CannotUnderstand
from pacs.model.dataset import DEPTH_MAX, IMPLICIT, ITEM, ITEM_DELIMITATION, UNDEFINED, Encoding, Scanned, read_header


def items_of(scanned: Scanned, tag: int) -> list[dict[int, bytes]]:
    """The items of a sequence, each with the raw values of its own elements, by tag.

    An item's nested sequences are not among them. What cannot be read is left out: the object keeps its bytes.
    """
    items: list[dict[int, bytes]] = []
    with contextlib.suppress(CannotUnderstand, struct.error):
        _read_items(memoryview(scanned.get(tag, b"")), 0, scanned.nested.get(tag, IMPLICIT), items, 0)
    return items


def _read_items(data: memoryview, at: int, encoding: Encoding, items: list[dict[int, bytes]] | None, depth: int) -> int:
    """Read a sequence's items up to its delimiter or the end of the data; return where it ends. None: pass them by."""
    if depth > DEPTH_MAX:
        raise CannotUnderstand(f"Sequences are nested deeper than {DEPTH_MAX} levels.")
    while at + 8 <= len(data):
        tag, length = encoding.tag(data, at), encoding.length(data, at + 4)
        at += 8
        if tag != ITEM:
            break
        values: dict[int, bytes] = {}
        if length == UNDEFINED:
            at = _read_item(data, at, encoding, values, depth)
        else:
            if items is not None:
                _read_item(data[at : at + length], 0, encoding, values, depth)
            at += length
        if items is not None:
            items.append(values)
    return at


def _read_item(data: memoryview, at: int, encoding: Encoding, values: dict[int, bytes], depth: int) -> int:
    while at + 8 <= len(data):
        header = read_header(data, at, encoding)
        if header is None:
            break
        tag, at, length, nested = header
        if tag == ITEM_DELIMITATION:
            break
        if length == UNDEFINED:
            at = _read_items(data, at, nested, None, depth + 1)
            continue
        values[tag] = bytes(data[at : at + length])
        at += length
    return at
