"""When security updates may be installed: a window of the week, in the machine's own time. Pure.

off                    never: they come with `pacs upgrade`
daily 02:00-04:00
sat,sun 23:00-03:00    one that ends before it begins, ends on the day after
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from pacs.errors import UsageError

OFF = "off"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TEXT = re.compile(r"(?P<days>[a-z, ]+?)\s+(?P<begins>\d{1,2}:\d{2})\s*-\s*(?P<ends>\d{1,2}:\d{2})")
#: Shorter ones would end while packages are still being installed.
LENGTH_MIN = timedelta(minutes=30)


@dataclass(frozen=True)
class Window:
    """Days on which it opens (0: Monday), and from when to when."""

    days: tuple[int, ...]
    begins: time
    ends: time

    @property
    def length(self) -> timedelta:
        """How long it is open."""
        minutes = (self.ends.hour - self.begins.hour) * 60 + self.ends.minute - self.begins.minute
        return timedelta(minutes=minutes % (24 * 60))

    def opened_at(self, now: datetime) -> datetime | None:
        """When it opened, if it is open now; None if it is not. now: in the machine's own time."""
        for days_ago in (0, 1):
            day = now.date() - timedelta(days=days_ago)
            opened = datetime.combine(day, self.begins, now.tzinfo)
            if day.weekday() in self.days and opened <= now < opened + self.length:
                return opened
        return None


def parse(text: str) -> str:
    """A window as it is written, in one form. Raise UsageError."""
    window = window_of(text)
    if window is None:
        return OFF
    days = "daily" if len(window.days) == len(_DAYS) else ",".join(_DAYS[day] for day in window.days)
    return f"{days} {window.begins:%H:%M}-{window.ends:%H:%M}"


def window_of(text: str) -> Window | None:
    """The window; None for `off`. Raise UsageError."""
    words = text.strip().lower()
    if words == OFF:
        return None
    found = _TEXT.fullmatch(words)
    try:
        if found is None:
            raise ValueError
        names = [name for name in re.split(r"[, ]+", found["days"]) if name]
        days = range(len(_DAYS)) if names == ["daily"] else sorted({_DAYS.index(name) for name in names})
        window = Window(tuple(days), *(time.fromisoformat(found[each].zfill(5)) for each in ("begins", "ends")))
    except ValueError:
        raise UsageError(f"{text!r} is no window. Write it as sun 02:00-04:00, daily 01:30-03:00, or off.") from None
    if window.length < LENGTH_MIN:
        raise UsageError(f"{text!r} is too short: half an hour at least, so that what is begun can end in it.")
    return window
