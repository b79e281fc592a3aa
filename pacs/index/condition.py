"""From a match to a condition of SQL.

Values go in as parameters only; what is written into a statement are columns of the attribute table.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from pacs.index.store import DEFAULT_TENANT
from pacs.model import names
from pacs.model.attributes import BY_KEYWORD, TIME_OF_DATE, Attribute, Level, Sequence
from pacs.model.matching import AnyOf, Item, Match, Moments, Name, OneOf, Range, Single, Sounds, Wildcard
from pacs.model.record import integer

#: The names of the levels' tables in a query.
TABLE = {Level.PATIENT: "p", Level.STUDY: "st", Level.SERIES: "se", Level.IMAGE: "o"}
_DATE_OF_TIME = {time: date for date, time in TIME_OF_DATE.items()}
_LAST = "\uffff"  # sorts behind all that a time can hold


class Parameters(dict[str, Any]):
    """A statement's parameters by name."""

    def add(self, value: Any) -> str:
        """Add a value; return the placeholder that stands for it."""
        name = f"p{len(self)}"
        self[name] = value
        return f"%({name})s"


def of(attribute: Attribute, match: Match, parameters: Parameters) -> str:
    """The condition that an attribute of a level matches."""
    column = f"{TABLE[attribute.level]}.{attribute.column}"
    if isinstance(match, AnyOf):
        return "(" + " OR ".join(of(attribute, each, parameters) for each in match.matches) + ")"
    if isinstance(match, Moments):
        date = BY_KEYWORD[_DATE_OF_TIME[attribute.keyword]]
        return _moments(f"{TABLE[date.level]}.{date.column}", column, match, parameters)
    if isinstance(match, (Name, Sounds)) and attribute.keyword == "PatientName":
        return _patient_name(match, parameters)
    return of_column(column, attribute.vr, match, parameters)


def of_column(column: str, vr: str, match: Match, parameters: Parameters) -> str:
    """The condition that a column, or an expression, matches."""
    match match:
        case Single(text):
            if vr == "IS":
                return _integer(column, (text,), parameters)
            return f"{column} = {parameters.add(text)}"
        case OneOf(texts):
            if vr == "IS":
                return _integer(column, texts, parameters)
            return f"{column} = ANY ({parameters.add(list(texts))}::text[])"
        case Wildcard(pattern):
            return f"{column} LIKE {parameters.add(_like(pattern))}"
        case Range(first, last):
            return _range(column, vr, first, last, parameters)
        case AnyOf(matches):
            return "(" + " OR ".join(of_column(column, vr, each, parameters) for each in matches) + ")"
        case Name(patterns):
            return _all(_group(f"{column}_key", _fits("g", pattern, parameters)) for pattern in patterns)
        case Sounds(words):
            return _all(_group(f"{column}_key", _has_word("g", word, parameters)) for word in words)
        case _:
            raise AssertionError(match)


def of_sequence(sequence: Sequence, match: Item, parameters: Parameters) -> str:
    """The condition that one item of a sequence fits all that is asked for."""
    column = f"{TABLE[sequence.level]}.{sequence.column}"
    conditions, exact = [], {}
    for keyword, each in match.matches:
        attribute = sequence.by_keyword(keyword)
        if attribute is None:
            continue
        conditions.append(of_column(f"coalesce(i->>'{keyword}', '')", attribute.vr, each, parameters))
        if isinstance(each, Single) and each.value:
            exact[keyword] = each.value
    if not conditions:
        return "true"
    contained = f"{column} @> {parameters.add(json.dumps([exact]))}::jsonb AND " if exact else ""
    return f"({contained}EXISTS (SELECT FROM jsonb_array_elements({column}) i WHERE {_all(conditions)}))"


def _all(conditions: Any) -> str:
    return " AND ".join(conditions)


def _group(column: str, condition: str) -> str:
    return f"EXISTS (SELECT FROM unnest(string_to_array({column}, '=')) g WHERE {condition})"


def _fits(column: str, pattern: str, parameters: Parameters) -> str:
    if "*" in pattern or "?" in pattern:
        return f"{column} LIKE {parameters.add(_like(pattern))}"
    return f"{column} = {parameters.add(pattern)}"


def _patient_name(match: Name | Sounds, parameters: Parameters) -> str:
    """A group of the name, or a word, is a row of its own, found by its index."""
    if isinstance(match, Name):
        return _all(_named("patient_name", _fits_key(each, parameters)) for each in match.patterns)
    conditions = []
    for word in match.words:
        if "*" in word or "?" in word:
            conditions.append(_named("patient_name", _has_word("n.name_key", word, parameters)))
        else:
            conditions.append(_named("patient_sound", f"n.sound IN (SELECT pacs_sounds({parameters.add(word)}::text))"))
    return _all(conditions)


def _fits_key(pattern: str, parameters: Parameters) -> str:
    """A component group, found by the start of its key, or where that is a wildcard by the trigrams of its parts."""
    fits = _fits("n.name_key", pattern, parameters)
    if not pattern.startswith(("*", "?")):
        return fits
    return f"pacs_ascii(n.name_key) LIKE {parameters.add(_like(names.ascii_pattern(pattern)))} AND {fits}"


def _named(table: str, condition: str) -> str:
    return (
        f"p.patient_key IN (SELECT n.patient_key FROM {table} n WHERE n.tenant_id = {DEFAULT_TENANT} AND {condition})"
    )


def _has_word(column: str, word: str, parameters: Parameters) -> str:
    """A word, of which the letters may be wildcards, stands in a folded component group."""
    fits = [f"{start}{word}{end}" for start in ("", "*^", "* ", "*-") for end in ("^*", " *", "-*")]
    return f"{column} LIKE ANY ({parameters.add([_like(each) for each in fits])}::text[])"


def _integer(column: str, texts: Collection[str], parameters: Parameters) -> str:
    """Numbers, not their texts, are compared; what is none matches nothing."""
    if "" in texts:
        return f"{column} IS NULL"
    numbers = [number for number in map(integer, texts) if number is not None]
    return f"{column} = ANY ({parameters.add(numbers)}::integer[])"


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _range(column: str, vr: str, first: str, last: str, parameters: Parameters) -> str:
    conditions = [f"{column} <> ''"]
    if vr == "TM":
        column = f"replace({column}, ':', '')"
    if first:
        conditions.append(f"{column} >= {parameters.add(first)}")
    if last:
        # A last time of 10 takes in all that begins with 10: to the precision that it is asked with.
        conditions.append(f"{column} <= {parameters.add(last + (_LAST if vr == 'TM' else ''))}")
    return "(" + " AND ".join(conditions) + ")"


def _moments(date: str, time: str, match: Moments, parameters: Parameters) -> str:
    moment = f"({date}, replace({time}, ':', ''))"
    conditions = [f"{date} <> ''"]
    if match.first[0]:
        conditions.append(f"{moment} >= ({parameters.add(match.first[0])}, {parameters.add(match.first[1])})")
    if match.last[0]:
        conditions.append(f"{moment} <= ({parameters.add(match.last[0])}, {parameters.add(match.last[1] + _LAST)})")
    return "(" + " AND ".join(conditions) + ")"


def is_selective(keyword: str, match: Match) -> bool:
    """Whether an index finds what a match of this key asks for, and that is little beside the archive."""
    if isinstance(match, AnyOf):
        return all(is_selective(keyword, each) for each in match.matches)
    if keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber", "PatientID"):
        return (
            isinstance(match, OneOf)
            or (isinstance(match, Single) and bool(match.value))
            or (isinstance(match, Wildcard) and len(match.prefix) >= 2)
        )
    if keyword == "PatientName":
        return isinstance(match, Sounds) or (isinstance(match, Name) and any(map(_is_selective_name, match.patterns)))
    if keyword == "PatientBirthDate":
        return isinstance(match, Single) and bool(match.value)
    if keyword == "RequestAttributesSequence":
        return isinstance(match, Item) and any(isinstance(each, Single) and each.value for _key, each in match.matches)
    return False


def _is_selective_name(pattern: str) -> bool:
    prefix = Wildcard(pattern).prefix
    # A kanji says more than a letter.
    return (
        len(prefix) >= 2
        or (bool(prefix) and not prefix.isascii())
        or any(len(run) >= 3 for run in names.literals(names.ascii_pattern(pattern)))
    )
