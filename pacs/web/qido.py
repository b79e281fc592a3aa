"""QIDO-RS: searches (PS3.18 8.3.4, 10.6), by the engine that answers C-FIND."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from starlette.datastructures import QueryParams

from pacs.errors import UsageError
from pacs.index import computed
from pacs.index.database import Database
from pacs.model.attributes import ATTRIBUTES, BY_KEYWORD, SEQUENCE_BY_KEYWORD, SEQUENCES, Level
from pacs.model.dicom_json import Json, text_element
from pacs.net import finding
from pacs.net.finding import Asked, Extended
from pacs.net.identifier import UNICODE, Answer, Key

#: Results of a search that says no limit, and the most that one gives; how far an offset may go.
LIMIT, LIMIT_MAX, OFFSET_MAX = 1000, 5000, 100_000
_VALUE_LENGTH_MAX, _PARAMETERS_MAX = 8192, 100

#: What an answer has whoever asks (PS3.18 Tables 10.6.3-3 to 10.6.3-5), of what the index knows.
DEFAULTS: dict[Level, tuple[str, ...]] = {
    Level.STUDY: (
        "StudyDate", "StudyTime", "AccessionNumber", "InstanceAvailability", "ModalitiesInStudy",
        "ReferringPhysicianName", "TimezoneOffsetFromUTC", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
        "StudyInstanceUID", "StudyID", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: (
        "Modality", "TimezoneOffsetFromUTC", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber",
        "NumberOfSeriesRelatedInstances", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
        "RequestAttributesSequence", "StudyInstanceUID",
    ),
    Level.IMAGE: (
        "SOPClassUID", "SOPInstanceUID", "InstanceAvailability", "TimezoneOffsetFromUTC", "InstanceNumber",
        "NumberOfFrames", "StudyInstanceUID", "SeriesInstanceUID",
    ),
}  # fmt: skip
_OPTIONS = frozenset(
    ["limit", "offset", "fuzzymatching", "includefield", "accept", "emptyvaluematching", "multiplevaluematching"]
)
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_RETRIEVE_URL = "00081190"


@dataclass
class Search:
    """A search as it was asked."""

    asked: Asked
    limit: int
    offset: int
    #: What was asked for and is not known: those keys match everything.
    ignored: list[str] = field(default_factory=list)


def read_search(level: Level, path: dict[str, str], parameters: QueryParams) -> Search:
    """A search from its URL: `path` are the UIDs in it, by keyword. Raise UsageError for what cannot be one."""
    if len(parameters.multi_items()) > _PARAMETERS_MAX:
        raise UsageError("The search has too many parameters.")
    keys: dict[str, Key] = {}
    ignored: list[str] = []
    for name in _default_keywords(level, path):
        keys[name] = _key_of(name)
    for name, value in parameters.multi_items():
        if name.lower() not in _OPTIONS:
            _add_match(keys, ignored, level, name, value)
    for value in parameters.getlist("includefield"):
        for name in value.split(","):
            _include(keys, ignored, level, name.strip())
    for keyword, uid in path.items():
        keys[keyword] = replace(_key_of(keyword), value=uid)
    fuzzy = _is_true(parameters, "fuzzymatching")
    asked = finding.asked_of(level, list(keys.values()), Extended(date_time=True, fuzzy=fuzzy), [UNICODE])
    # Whatever was matched of a sequence, all that is known of its items is answered.
    asked = replace(asked, keys=[replace(key, keys=()) for key in asked.keys])
    limit = min(_number(parameters, "limit", LIMIT), LIMIT_MAX)
    offset = _number(parameters, "offset", 0)
    if offset > OFFSET_MAX:
        raise UsageError(f"An offset is at most {OFFSET_MAX}. Narrow the search.")
    return Search(asked, limit, offset, ignored)


def _default_keywords(level: Level, path: dict[str, str]) -> list[str]:
    """Those of the level, and of the levels above that the path does not name."""
    levels = [level]
    if level > Level.STUDY and "StudyInstanceUID" not in path:
        levels.insert(0, Level.STUDY)
    if level == Level.IMAGE and "SeriesInstanceUID" not in path:
        levels.insert(-1, Level.SERIES)
    return list(dict.fromkeys(keyword for each in levels for keyword in DEFAULTS[each]))


def _key_of(keyword: str) -> Key:
    sequence = SEQUENCE_BY_KEYWORD.get(keyword)
    if sequence is not None:
        return Key(sequence.tag, "SQ", keyword)
    tag = int(tag_for_keyword(keyword) or 0)
    return Key(tag, dictionary_VR(tag)[:2], keyword)


def _keyword(name: str) -> str:
    """The keyword that a name or tag stands for; empty if it is none of PS3.6."""
    if _TAG.fullmatch(name):
        return keyword_for_tag(int(name, 16))
    tag = tag_for_keyword(name)
    return name if tag is not None and dictionary_has_tag(tag) else ""


def _is_known(keyword: str, level: Level) -> bool:
    if keyword in BY_KEYWORD:
        return BY_KEYWORD[keyword].level <= level
    if keyword in SEQUENCE_BY_KEYWORD:
        return SEQUENCE_BY_KEYWORD[keyword].level <= level
    return computed.expression(keyword, level) is not None


def _add_match(keys: dict[str, Key], ignored: list[str], level: Level, name: str, value: str) -> None:
    if len(value) > 100 * _VALUE_LENGTH_MAX:
        raise UsageError("A value of the search is too long.")
    words = [_keyword(each) for each in name.split(".")]
    if not all(words) or len(words) > 2:
        raise UsageError(f"{name[:80]!r} is no attribute that can be searched for: a keyword or tag of PS3.6, or two.")
    keyword = words[0]
    if not _is_known(keyword, level) or (keyword in computed.KEYWORDS and keyword not in computed.MATCHED_AS):
        ignored.append(name)
        return
    key = _key_of(keyword)
    if len(words) == 2:
        sequence = SEQUENCE_BY_KEYWORD.get(keyword)
        inner = sequence.by_keyword(words[1]) if sequence is not None else None
        if inner is None:
            ignored.append(name)
            return
        before = keys.get(keyword, key).keys
        keys[keyword] = replace(key, keys=(*before, Key(inner.tag, inner.vr, inner.keyword, value)))
    elif key.vr == "SQ":
        raise UsageError(f"{name[:80]} is a sequence: name an attribute of its items behind a dot.")
    else:
        if key.vr == "UI":
            value = value.replace(",", "\\")  # a list of UIDs (PS3.18 8.3.4.1)
        keys[keyword] = replace(key, value=value)


def _include(keys: dict[str, Key], ignored: list[str], level: Level, name: str) -> None:
    if name.lower() == "all":
        known = {each.keyword: each.level for each in ATTRIBUTES} | {each.keyword: each.level for each in SEQUENCES}
        for keyword, its_level in known.items():
            if its_level <= level:
                keys.setdefault(keyword, _key_of(keyword))
        for keyword in computed.KEYWORDS:
            if computed.expression(keyword, level) is not None:
                keys.setdefault(keyword, _key_of(keyword))
        return
    keyword = _keyword(name.partition(".")[0])
    if not keyword:
        raise UsageError(f"{name[:80]!r} is no attribute of PS3.6: a keyword, a tag, or `all`.")
    if _is_known(keyword, level):
        keys.setdefault(keyword, _key_of(keyword))
    else:
        ignored.append(name)


def _is_true(parameters: QueryParams, name: str) -> bool:
    value = parameters.get(name, "false").lower()
    if value not in ("true", "false"):
        raise UsageError(f"{name} is true or false.")
    return value == "true"


def _number(parameters: QueryParams, name: str, default: int) -> int:
    value = parameters.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise UsageError(f"{name} is a number, 0 or more.")
    return int(value)


def run_search(database: Database, search: Search, ae_title: str, base: str) -> tuple[list[Json], bool]:
    """A page of what matches, as DICOM JSON; and whether there is more behind it."""
    taken = search.offset + search.limit + 1
    found = finding.answers(database, search.asked, ae_title, lambda: False)
    page = [_json(elements, base) for elements in islice(found, search.offset, taken)]
    return page[: search.limit], len(page) > search.limit


def _json(elements: Sequence[Answer], base: str) -> Json:
    found: Json = {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}
    for element in elements:
        if element.tag != 0x00080052:  # the level is the URL's
            found[f"{element.tag:08X}"] = _element(element)
    found[_RETRIEVE_URL] = {"vr": "UR", "Value": [_url(found, base)]}
    return dict(sorted(found.items()))


def _element(element: Answer) -> Json:
    if element.vr == "SQ":
        items = [{f"{each.tag:08X}": _element(each) for each in item} for item in element.items]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.vr in ("LT", "ST", "UT", "UR"):
        return text_element(element.vr, [element.value])
    return text_element(element.vr, element.value.split("\\"))


def _url(found: Json, base: str) -> str:
    url = base
    for name, tag in (("studies", "0020000D"), ("series", "0020000E"), ("instances", "00080018")):
        values: list[Any] = found.get(tag, {}).get("Value", [])
        if not values:
            break
        url += f"/{name}/{values[0]}"
    return url
