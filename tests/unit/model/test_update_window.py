"""When a window is open."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from pacs.errors import UsageError
from pacs.model.update_window import parse, window_of

BERLIN = ZoneInfo("Europe/Berlin")
#: A Sunday.
SUNDAY = datetime(2026, 11, 22, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("OFF", "off"),
        (" Sun 2:00 - 4:00 ", "sun 02:00-04:00"),
        ("sun, mon 01:30-03:00", "mon,sun 01:30-03:00"),
        ("daily 23:00-03:00", "daily 23:00-03:00"),
    ],
)
def test_what_is_taken(text: str, kept: str) -> None:
    assert parse(text) == kept
    assert parse(kept) == kept


@pytest.mark.parametrize(
    "text", ["always", "sun", "sunday 02:00-04:00", "sun 02:00-02:10", "sun 25:00-26:00", "sun 2-4"]
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="window|short"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "hour", "minute", "day", "is_open"),
    [
        ("sun 02:00-04:00", 1, 59, 22, False),
        ("sun 02:00-04:00", 2, 0, 22, True),
        ("sun 02:00-04:00", 4, 0, 22, False),
        ("sun 02:00-04:00", 3, 0, 23, False),
        ("sat 23:00-03:00", 2, 59, 22, True),  # it opened on Saturday
        ("sun 23:00-03:00", 2, 59, 22, False),
        ("daily 23:00-03:00", 23, 30, 22, True),
    ],
)
def test_when_it_is_open(text: str, hour: int, minute: int, day: int, is_open: bool) -> None:
    window = window_of(text)
    assert window is not None
    now = SUNDAY.replace(day=day, hour=hour, minute=minute)
    opened = window.opened_at(now)
    assert (opened is not None) == is_open
    assert opened is None or (opened <= now and opened.tzinfo is BERLIN)
