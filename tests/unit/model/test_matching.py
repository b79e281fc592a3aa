"""From a query's value to what it asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.errors import CannotUnderstand
from pacs.model.attributes import ATTRIBUTES, BY_KEYWORD
from pacs.model.matching import (
    PATTERNS_MAX,
    WORDS_MAX,
    AnyOf,
    Match,
    Moments,
    Name,
    OneOf,
    Range,
    Single,
    Sounds,
    Wildcard,
    accepts,
    combine,
    parse,
)


@pytest.mark.parametrize(
    ("keyword", "value", "match"),
    [
        ("PatientName", "", None),
        ("PatientName", "*", None),
        ("PatientName", "**", None),
        ("PatientName", "Doe^Jane", Name(("doe^jane^",))),
        ("PatientName", "Doe*", Name(("doe*",))),
        ("PatientName", "Yamada=山田*", Name(("yamada^", "山田*"))),
        ("PatientName", "^^", None),
        ("PatientName", "=*=", None),
        ("PatientName", '""', Single("")),
        ("PatientName", "A\\B*", AnyOf((Name(("a^",)), Name(("b*",))))),
        ("PatientID", "A*\\B", AnyOf((Wildcard("A*"), Single("B")))),
        ("PatientID", "A\\*", None),
        ("PatientID", '""', Single("")),
        ("PatientID", "P?1", Wildcard("P?1")),
        ("PatientID", " P1 ", Single("P1")),
        ("PatientID", "A\\B", OneOf(("A", "B"))),
        ("Modality", "ct", Single("CT")),  # the index holds code strings in capitals
        ("Modality", "c*", Wildcard("C*")),
        ("Modality", "CT\\MR", OneOf(("CT", "MR"))),
        ("StudyInstanceUID", "1.2.3\\1.2.4", OneOf(("1.2.3", "1.2.4"))),
        ("StudyInstanceUID", "1.2.3\\", Single("1.2.3")),
        ("StudyInstanceUID", "1.2.*", Single("1.2.*")),
        ("StudyInstanceUID", "\\", None),
        ("StudyDate", "20260102", Single("20260102")),
        ("StudyDate", "2026.01.02", Single("20260102")),
        ("StudyDate", "20260101-20260131", Range("20260101", "20260131")),
        ("StudyDate", "20260101 - 20260131", Range("20260101", "20260131")),
        ("StudyDate", "20260101-", Range("20260101", "")),
        ("StudyDate", "-20260131", Range("", "20260131")),
        ("StudyDate", "-", None),
        ("StudyDate", "20260101\\20260103", OneOf(("20260101", "20260103"))),
        ("StudyDate", '""', Single("")),
        ("StudyTime", "10", Range("10", "10")),
        ("StudyTime", "10:15", Range("1015", "1015")),
        ("StudyTime", "1015-1130", Range("1015", "1130")),
        ("InstanceNumber", "7", Single("7")),
    ],
)
def test_parse(keyword: str, value: str, match: Match | None) -> None:
    assert parse(BY_KEYWORD[keyword], value) == match


@given(st.sampled_from(ATTRIBUTES), st.text(max_size=30))
def test_any_value_parses_and_holds_nothing_that_a_database_refuses(attribute, value: str) -> None:  # type: ignore[no-untyped-def]
    match = parse(attribute, value)
    if match is not None:
        assert "\\x00" not in repr(match)


def test_a_name_asked_for_by_its_sound_is_its_words() -> None:
    assert parse(BY_KEYWORD["PatientName"], "Müller^J*=*", fuzzy=True) == Sounds(("muller", "j*"))
    assert parse(BY_KEYWORD["PatientName"], "*^*", fuzzy=True) is None


def test_a_date_and_its_time_are_one_moment_when_that_is_agreed_on() -> None:
    days, hours = Range("20260705", "20260707"), Range("1000", "1800")
    moments = Moments(("20260705", "1000"), ("20260707", "1800"))
    assert combine({"StudyDate": days, "StudyTime": hours}) == {"StudyDate": days, "StudyTime": moments}
    assert combine({"StudyTime": hours, "SeriesDate": days}) == {"StudyTime": hours, "SeriesDate": days}
    (_date, half) = combine({"StudyDate": Range("20260705", ""), "StudyTime": hours}).values()
    assert half == Moments(("20260705", "1000"), ("", ""))


@pytest.mark.parametrize(
    ("match", "date", "time", "fits"),
    [
        (Moments(("20260705", "10"), ("20260707", "18")), "20260706", "03", True),
        (Moments(("20260705", "10"), ("20260707", "18")), "20260705", "0959", False),
        (Moments(("20260705", "10"), ("20260707", "18")), "20260707", "185959", True),
        (Moments(("20260705", "10"), ("20260707", "18")), "20260707", "19", False),
        (Moments(("", ""), ("20260707", "18")), "", "", False),
    ],
)
def test_moments(match: Moments, date: str, time: str, fits: bool) -> None:
    assert accepts(match, date, time, time) == fits


def test_a_key_cannot_ask_for_so_much_that_the_statement_bursts() -> None:
    name = BY_KEYWORD["PatientName"]
    assert parse(name, "=".join("abcdefgh")) == Name(("a^", "b^", "c^"))
    words = parse(name, " ".join(f"w{number}" for number in range(1000)), fuzzy=True)
    assert isinstance(words, Sounds)
    assert len(words.words) == WORDS_MAX
    patterns = "\\".join(f"A{number}*" for number in range(PATTERNS_MAX + 1))
    with pytest.raises(CannotUnderstand):
        parse(BY_KEYWORD["PatientID"], patterns)
    uids = "\\".join(f"1.2.{number}" for number in range(10000))
    assert isinstance(parse(BY_KEYWORD["StudyInstanceUID"], uids), OneOf)
