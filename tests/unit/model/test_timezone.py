"""Moments at offsets from UTC."""

from __future__ import annotations

import pytest

from pacs.model.timezone import local_offset, moved, next_day, offset_minutes


@pytest.mark.parametrize(
    ("text", "minutes"), [("+0100", 60), ("-0330", -210), ("+0000", 0), (" +1400 ", 840), ("", None), ("Z", None)]
)
def test_offsets(text: str, minutes: int | None) -> None:
    assert offset_minutes(text) == minutes


@pytest.mark.parametrize(
    ("date", "time", "offsets", "there"),
    [
        ("20260101", "003000", (60, 0), ("20251231", "233000")),
        ("20260101", "2330", (0, 60), ("20260102", "0030")),
        ("20260101", "23", (0, 90), ("20260102", "0030")),
        ("20260101", "10:15:30.123456", (0, -210), ("20260101", "064530.123456")),
        ("20260101", "101530", (60, 60), ("20260101", "101530")),
        ("20260101", "", (0, 60), ("20260101", "")),
        ("", "1015", (0, 60), ("", "1015")),
        ("20261301", "1015", (0, 60), ("20261301", "1015")),
        ("00010101", "0000", (60, 0), ("00010101", "0000")),
    ],
)
def test_moved(date: str, time: str, offsets: tuple[int, int], there: tuple[str, str]) -> None:
    assert moved(date, time, *offsets) == there


def test_days() -> None:
    assert next_day("20261231", 1) == "20270101"
    assert next_day("today", 1) == "today"
    assert next_day("", 1) == ""


@pytest.mark.parametrize("date", ["20260701", "", "00000000", "99999999", "x"])
def test_this_machine_has_an_offset_on_any_day(date: str) -> None:
    assert offset_minutes(local_offset(date)) is not None
