"""How two data sets differ: which attributes, with their values. Never pixels, nor other long or binary values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

_BINARY_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW", "US or OW"])
_VALUE_LENGTH_MAX = 80


@dataclass(frozen=True)
class Difference:
    """An attribute in which two data sets differ: its path, its name, its value in each (None where it is missing)."""

    path: str
    name: str
    one: str | None
    other: str | None


def differences(one: Dataset, other: Dataset, path: str = "") -> Iterator[Difference]:
    """Every attribute in which two data sets differ, in the order of tags, those of sequences too."""
    for tag in sorted({*one.keys(), *other.keys()}):
        if tag.element == 0 or tag == 0xFFFCFFFC:  # group lengths and padding are no content
            continue
        here = f"{path}({tag.group:04X},{tag.element:04X})"
        first, second = _items(one, tag), _items(other, tag)
        if first is not None and second is not None and len(first) == len(second):
            for number, (a, b) in enumerate(zip(first, second, strict=True), start=1):
                yield from differences(a, b, f"{here}[{number}].")
            continue
        values = shown(one, tag), shown(other, tag)
        if values[0] != values[1]:
            yield Difference(here, _name(one if tag in one else other, tag), *values)


def _items(ds: Dataset, tag: BaseTag) -> list[Dataset] | None:
    """A sequence's items; None if the data set has no sequence there that can be read."""
    if tag not in ds:
        return None
    try:
        element = ds[tag]
    except Exception:  # pydicom raises what it likes for values that are none
        return None
    return list(element.value or ()) if element.VR == "SQ" else None


def shown(ds: Dataset, tag: BaseTag) -> str | None:
    """A value as a person may see it: binary and long ones by size and digest, sequences by their number of items."""
    if tag not in ds:
        return None
    try:
        element = ds[tag]
        vr, value = element.VR, element.value
    except Exception:
        return _digest(bytes(ds.get_item(tag).value or b""))
    if vr == "SQ":
        return f"{len(value or ())} items"
    if vr in _BINARY_VRS or isinstance(value, bytes):
        return _digest(bytes(value or b""))
    text = "" if value is None else str(value)
    if len(text) > _VALUE_LENGTH_MAX:
        return f"{_printable(text[: _VALUE_LENGTH_MAX // 2])}… {_digest(text.encode())}"
    return _printable(text)


def _digest(value: bytes) -> str:
    return f"{len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()[:12]}…"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _name(ds: Dataset, tag: BaseTag) -> str:
    try:
        return str(ds[Tag(tag)].name)
    except Exception:
        return "Unknown"
