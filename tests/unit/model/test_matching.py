"""From a query's value to what it asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.model.attributes import ATTRIBUTES, BY_KEYWORD
from pacs.model.matching import Match, OneOf, Range, Single, Wildcard, parse


@pytest.mark.parametrize(
    ("keyword", "value", "match"),
    [
        ("PatientName", "", None),
        ("PatientName", "*", None),
        ("PatientName", "**", None),
        ("PatientName", "Doe^Jane", Single("Doe^Jane")),
        ("PatientName", "Doe*", Wildcard("Doe*")),
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
        assert "\0" not in "".join(str(text) for part in vars(match).values() for text in part)
