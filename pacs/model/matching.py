"""Attribute matching of queries (PS3.4 C.2.2.2): from a key's value to what it asks for.

Universal matching is None. Nothing here knows SQL; pacs/index/query.py turns a match into a condition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pacs.model.attributes import Attribute

#: Value representations with wildcard matching (PS3.4 C.2.2.2.4).
_WILDCARD_VRS = frozenset(["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
_DATE = re.compile(r"([0-9]{4})[.-]?([0-9]{2})[.-]?([0-9]{2})", re.ASCII)


@dataclass(frozen=True)
class Single:
    """The value itself; for a person's name, case does not count (PS3.4 C.2.2.2.1.2)."""

    value: str


@dataclass(frozen=True)
class OneOf:
    """Any of these: a list of UIDs (C.2.2.2.2), or several values."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Wildcard:
    """`*` is any run of characters, `?` any one (C.2.2.2.4)."""

    pattern: str


@dataclass(frozen=True)
class Range:
    """Between two dates or times, both included; an empty end is open (C.2.2.2.5)."""

    first: str
    last: str


Match = Single | OneOf | Wildcard | Range


def parse(attribute: Attribute, value: str) -> Match | None:
    """What a query's value of an attribute asks for; None for universal matching (C.2.2.2.3)."""
    value = value.replace("\0", " ").strip()
    if attribute.vr == "CS":
        value = value.upper()  # as the index holds them
    if not value or (set(value) == {"*"} and attribute.vr in _WILDCARD_VRS):
        return None
    if attribute.vr in ("DA", "TM"):
        return _date_or_time(attribute.vr, value)
    if "\\" in value:
        parts = tuple(part.strip() for part in value.split("\\") if part.strip())
        return OneOf(parts) if len(parts) > 1 else parse(attribute, "".join(parts))
    if attribute.vr in _WILDCARD_VRS and ("*" in value or "?" in value):
        return Wildcard(value)
    return Single(value)


def _date_or_time(vr: str, value: str) -> Match | None:
    value = _DATE.sub(r"\1\2\3", value) if vr == "DA" else value.replace(":", "")
    if "-" not in value:
        # A time is exact to the precision that it is asked with: 10 is all of 10:00:00 to 10:59:59.
        return Single(value) if vr == "DA" else Range(value, value)
    first, _, last = value.partition("-")
    return Range(first.strip(), last.strip()) if first.strip() or last.strip() else None
