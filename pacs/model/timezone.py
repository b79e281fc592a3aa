"""Dates and times moved from one offset from UTC to another (Timezone Query Adjustment, PS3.4 C.5)."""

from __future__ import annotations

import re
import time as system_time
from datetime import UTC, datetime, timedelta

from pacs import clock

_OFFSET = re.compile(r"([+-])([01][0-9])([0-5][0-9])", re.ASCII)
_MOMENT = re.compile(r"([0-9]{8})([0-9]{2}(?:[0-9]{2}){0,2})(\.[0-9]{1,6})?", re.ASCII)


def offset_minutes(text: str) -> int | None:
    """What a Timezone Offset From UTC (0008,0201) stands for [min]; None if it is none."""
    match = _OFFSET.fullmatch(text.strip())
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3])
    return -minutes if match[1] == "-" else minutes


def local_offset(date: str) -> str:
    """This machine's offset on a day (YYYYMMDD), as (0008,0201) has it; today's for what is no date."""
    try:
        at = system_time.mktime((int(date[:4]), int(date[4:6]), int(date[6:8]), 12, 0, 0, 0, 0, -1))
    except (ValueError, OverflowError):
        at = clock.now().timestamp()
    return system_time.strftime("%z", system_time.localtime(at))[:5]


def moved(date: str, time: str, from_minutes: int, to_minutes: int) -> tuple[str, str]:
    """A date and its time, which was written at an offset, as it is at another, to the time's own precision.

    Both stay as they are where one of them is missing or none.
    """
    match = _MOMENT.fullmatch(date + time.replace(":", ""))
    if match is None or from_minutes == to_minutes:
        return date, time
    digits = match[2]
    try:
        there = datetime.strptime(match[1] + digits.ljust(6, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        here = there + timedelta(minutes=to_minutes - from_minutes)
    except (ValueError, OverflowError):
        return date, time
    size = len(digits) if (to_minutes - from_minutes) % 60 == 0 else max(len(digits), 4)
    return here.strftime("%Y%m%d"), here.strftime("%H%M%S")[:size] + (match[3] or "")


def next_day(date: str, days: int) -> str:
    """A date (YYYYMMDD) so many days later; the date itself if it is none."""
    try:
        return (datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=days)).strftime("%Y%m%d")
    except (ValueError, OverflowError):
        return date
