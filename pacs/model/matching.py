"""Attribute matching of queries (PS3.4 C.2.2.2): from a key's value to what it asks for.

Universal matching is None. Nothing here knows SQL; pacs/index/condition.py turns a match into a condition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pacs.errors import CannotUnderstand
from pacs.model import names
from pacs.model.attributes import TIME_OF_DATE, Attribute

#: Value representations with wildcard matching (PS3.4 C.2.2.2.4).
_WILDCARD_VRS = frozenset(["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
_DATE = re.compile(r"([0-9]{4})[.-]?([0-9]{2})[.-]?([0-9]{2})", re.ASCII)
_LAST = "\uffff"  # sorts behind all that a time can hold

#: The most wildcards or ranges that one key may ask for, component groups of a name, and words of it by their sound:
#: each becomes a condition of its own. Lists of plain values, UIDs above all, may have any length.
PATTERNS_MAX, GROUPS_MAX, WORDS_MAX = 100, 3, 16

#: Asks for an empty value (PS3.4 C.2.2.2.7).
EMPTY = '""'


@dataclass(frozen=True)
class Single:
    """The value itself; an empty one asks for an empty value."""

    value: str


@dataclass(frozen=True)
class OneOf:
    """Any of these: a list of UIDs (C.2.2.2.2), or several values (C.2.2.2.8)."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Wildcard:
    """`*` is any run of characters, `?` any one (C.2.2.2.4)."""

    pattern: str

    @property
    def prefix(self) -> str:
        """What comes before the first wildcard."""
        return re.split(r"[*?]", self.pattern, maxsplit=1)[0]


@dataclass(frozen=True)
class Range:
    """Between two dates or times, both included; an empty end is open (C.2.2.2.5)."""

    first: str
    last: str


@dataclass(frozen=True)
class Moments:
    """Between two moments, both included, each a date and a time together (C.2.2.2.5.4); an empty end is open."""

    first: tuple[str, str]
    last: tuple[str, str]


@dataclass(frozen=True)
class Name:
    """A person's name: one of its component groups fits each of these (names.group_pattern)."""

    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Sounds:
    """A person's name (fuzzy semantic matching): each of these words, folded, is in it or sounds like one of it.

    A word with wildcards fits the letters of a word of the name instead.
    """

    words: tuple[str, ...]


@dataclass(frozen=True)
class AnyOf:
    """Any of these matches."""

    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Item:
    """One item of a sequence that fits all of these, by keyword (C.2.2.2.6)."""

    matches: tuple[tuple[str, Match], ...]


Match = Single | OneOf | Wildcard | Range | Moments | Name | Sounds | AnyOf | Item


def parse(attribute: Attribute, value: str, fuzzy: bool = False) -> Match | None:
    """What a query's value of an attribute asks for; None for universal matching (C.2.2.2.3).

    fuzzy: names are asked for by their sound, as negotiated (C.2.2.2.1.1).
    Raise CannotUnderstand if there are more than PATTERNS_MAX wildcards, ranges or names.
    """
    value = value.replace("\0", " ").strip()
    if value == EMPTY:
        return Single("")
    if attribute.vr == "CS":
        value = value.upper()  # as the index holds them
    parts = [part.strip() for part in value.split("\\") if part.strip()]
    if not parts:
        return None
    matches = [_parse_one(attribute.vr, part, fuzzy) for part in parts]
    if len(matches) == 1:
        return matches[0]
    asked = tuple(match for match in matches if match is not None)
    if len(asked) < len(matches):
        return None  # one of them asks for anything
    if all(isinstance(match, Single) for match in asked):
        return OneOf(tuple(match.value for match in asked if isinstance(match, Single)))
    if len(asked) > PATTERNS_MAX:
        raise CannotUnderstand(f"A key asks for more than {PATTERNS_MAX} patterns. Check the querying device.")
    return AnyOf(asked)


def _parse_one(vr: str, value: str, fuzzy: bool) -> Match | None:
    if vr in _WILDCARD_VRS and set(value) == {"*"}:
        return None
    if vr in ("DA", "TM"):
        return _date_or_time(vr, value)
    if vr == "PN":
        return _name(value, fuzzy)
    if vr in _WILDCARD_VRS and ("*" in value or "?" in value):
        return Wildcard(value)
    return Single(value)


def _name(value: str, fuzzy: bool) -> Match | None:
    if fuzzy:
        asked = tuple(word for word in names.words(value) if word.strip("*"))[:WORDS_MAX]
        return Sounds(asked) if asked else None
    patterns = tuple(pattern for pattern in map(names.group_pattern, value.split("=")[:GROUPS_MAX]) if pattern)
    return Name(patterns) if patterns else None


def _date_or_time(vr: str, value: str) -> Match | None:
    value = _DATE.sub(r"\1\2\3", value) if vr == "DA" else value.replace(":", "")
    if "-" not in value:
        # A time is exact to the precision that it is asked with: 10 is all of 10:00:00 to 10:59:59.
        return Single(value) if vr == "DA" else Range(value, value)
    first, _, last = value.partition("-")
    return Range(first.strip(), last.strip()) if first.strip() or last.strip() else None


def combine(matches: dict[str, Match]) -> dict[str, Match]:
    """Matches of dates and times, by keyword, with each date and its time taken together (C.2.2.2.5.4).

    The date's own match stays, as it is the one that an index serves; the time's goes into Moments.
    """
    combined = dict(matches)
    for date, time in TIME_OF_DATE.items():
        days, hours = combined.get(date), combined.get(time)
        if isinstance(days, Single) and days.value:
            days = Range(days.value, days.value)
        if isinstance(days, Range) and isinstance(hours, Range):
            combined[time] = Moments(
                (days.first, hours.first if days.first else ""), (days.last, hours.last if days.last else "")
            )
    return combined


def accepts(match: Match, date: str, time: str, value: str) -> bool:
    """Whether a date, a time, or both together, that are known only now, fit a match. `value` is the key's own."""
    match match:
        case Single(asked):
            return value == asked
        case OneOf(values):
            return value in values
        case AnyOf(matches):
            return any(accepts(each, date, time, value) for each in matches)
        case Range(first, last):
            return bool(value) and (not first or value >= first) and (not last or value <= last + _LAST)
        case Moments(begin, end):
            return (
                bool(date)
                and (not begin[0] or (date, time) >= begin)
                and (not end[0] or (date, time) <= (end[0], end[1] + _LAST))
            )
        case _:
            return True
