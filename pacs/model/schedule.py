"""When something may run, and how fast: windows of the week, and a bound on bytes a second. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from pacs.errors import UsageError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_WORDS = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?(?P<begin>\d\d?:\d\d)-(?P<end>\d\d?:\d\d)", re.ASCII
)


@dataclass(frozen=True)
class Window:
    """A part of the week in local time. One that ends before it begins goes on into the next day; begin and end are
    minutes of the day."""

    days: frozenset[int]
    begin: int
    end: int

    @classmethod
    def of(cls, words: str) -> Window:
        """The window that words as `22:00-06:00`, `sat-sun 00:00-24:00` or `fri 20:00-23:30` say. Raise UsageError."""
        match = _WORDS.fullmatch(words.strip().lower())
        if match is None:
            raise UsageError(f"{words!r} is no window of time. Write 22:00-06:00, or mon-fri 20:00-06:00.")
        begin, end = _minutes(match["begin"], words), _minutes(match["end"], words)
        if begin in (end, _DAY_MINUTES):
            raise UsageError(f"The window {words!r} is empty. A whole day is 00:00-24:00.")
        return cls(_days(match["first"], match["last"], words), begin, end)

    def holds(self, local: datetime) -> bool:
        """Whether a local time is in the window. The days are those on which it begins."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or ((day - 1) % 7 in self.days and minute < self.end)


def is_open(windows: tuple[str, ...], local: datetime) -> bool:
    """Whether a local time is in one of the windows; without any it always is."""
    return not windows or any(Window.of(words).holds(local) for words in windows)


def _minutes(words: str, window: str) -> int:
    hours, minutes = map(int, words.split(":"))
    total = hours * 60 + minutes
    if minutes > 59 or total > _DAY_MINUTES:
        raise UsageError(f"{words} in the window {window!r} is no time of the day. Write 00:00 to 24:00.")
    return total


def _days(first: str | None, last: str | None, window: str) -> frozenset[int]:
    for name in (first, last):
        if name and name not in _DAYS:
            raise UsageError(f"{name} in the window {window!r} is no day of the week. Write {' '.join(_DAYS)}.")
    if first is None:
        return frozenset(range(7))
    begin = _DAYS.index(first)
    count = (_DAYS.index(last or first) - begin) % 7 + 1
    return frozenset((begin + each) % 7 for each in range(count))


class Bucket:
    """A token bucket: so many bytes a second over time, with one second's worth at once.

    What is taken may be more than the bucket holds: then it is owed, and the next one waits for it.
    """

    def __init__(self, bytes_per_s: int | None, now_s: float) -> None:
        """None: no bound. now_s is a monotonic clock's [s]."""
        self.bytes_per_s = bytes_per_s
        self._tokens = float(bytes_per_s or 0)
        self._at_s = now_s

    def take(self, size_bytes: int, now_s: float) -> float:
        """Take the tokens of size_bytes; return how long to wait before they are used [s]."""
        if self.bytes_per_s is None:
            return 0.0
        self._tokens = min(self.bytes_per_s, self._tokens + (now_s - self._at_s) * self.bytes_per_s) - size_bytes
        self._at_s = now_s
        return max(0.0, -self._tokens / self.bytes_per_s)
