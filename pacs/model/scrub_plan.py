"""Which folders of the volumes are read again today, so that every copy is read in its time, and no day has a burst.

A folder is due `period` after its oldest copy was last read. Each day has a share of all bytes that would read all of
them in three quarters of the period: the last quarter is for days on which nothing could be done. Where more than that
falls due (an archive that was restored, or switched off for a month), the share grows to what is needed. What was read
a short while ago waits, even if the share is not used up.

A volume can have a period of its own: each byte that is read from a bucket costs money. What has one period is planned
apart from what has another, and rests until the last quarter of its period: it is read hardly more often than it must.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

#: Of the period: how soon all is read, and how long a folder rests at least.
AIM = 0.75
REST = 0.5
#: Of what is overdue, so many days' part is caught up on in one day, not all of it.
CATCH_UP = timedelta(days=7)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a volume that is read as one. verified_at: since when all its copies are known to be good."""

    volume_id: str
    folder: str
    copies: int
    size_bytes: int
    verified_at: datetime
    #: A reading of it was begun and did not end.
    is_begun: bool = False
    #: How soon it is read again, if that was said of its volume.
    period: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read today, in this order, and how much that is [bytes]."""

    folders: tuple[Folder, ...]
    size_bytes: int
    #: How much a day should do [bytes].
    share_bytes: int
    overdue: int


def make_plan(folders: Sequence[Folder], now: datetime, period: timedelta) -> Plan:
    """Today's share: the folders whose turn it is; of each period at least one, if any has rested long enough.

    period: of those that have none of their own.
    """
    plans = [_plan_of(those, now, own) for own, those in by_period(folders, period).items()]
    return Plan(
        tuple(folder for plan in plans for folder in plan.folders),
        sum(plan.size_bytes for plan in plans),
        sum(plan.share_bytes for plan in plans),
        sum(plan.overdue for plan in plans),
    )


def by_period(folders: Sequence[Folder], period: timedelta) -> dict[timedelta, list[Folder]]:
    """The folders by how soon they are read again."""
    found: dict[timedelta, list[Folder]] = {}
    for folder in folders:
        found.setdefault(folder.period or period, []).append(folder)
    return found


def _plan_of(folders: Sequence[Folder], now: datetime, period: timedelta) -> Plan:
    """Of folders of one period: oldest first."""
    by_age = sorted(folders, key=lambda each: (not each.is_begun, each.verified_at, each.volume_id, each.folder))
    share = _share_bytes(folders, now, period)
    chosen: list[Folder] = []
    size_bytes = 0
    for folder in by_age:
        if size_bytes >= share and chosen:
            break
        rest = REST if folder.period is None else AIM
        if folder.is_begun or now - folder.verified_at >= period * rest:
            chosen.append(folder)
            size_bytes += folder.size_bytes
    return Plan(tuple(chosen), size_bytes, share, sum(is_overdue(folder, now, period) for folder in folders))


def is_overdue(folder: Folder, now: datetime, period: timedelta) -> bool:
    """Whether a copy in the folder was not read for longer than its period."""
    return now - folder.verified_at > (folder.period or period)


def is_due(folder: Folder, now: datetime, period: timedelta) -> bool:
    """Whether it is in the last quarter of its period."""
    return now - folder.verified_at > (folder.period or period) * AIM


def share_bytes(folders: Sequence[Folder], now: datetime, period: timedelta) -> int:
    """How much must be read today [bytes] so that nothing is late, today or on any day to come."""
    return sum(_share_bytes(those, now, own) for own, those in by_period(folders, period).items())


def _share_bytes(folders: Sequence[Folder], now: datetime, period: timedelta) -> int:
    share = sum(folder.size_bytes for folder in folders) / max(1.0, period * AIM / _DAY)
    until = 0
    for folder in sorted(folders, key=lambda each: each.verified_at):
        until += folder.size_bytes
        share = max(share, until / (time_left(folder, now, period) / _DAY))
    return math.ceil(share)


def time_left(folder: Folder, now: datetime, period: timedelta) -> timedelta:
    """In how long the folder must have been read."""
    left = folder.verified_at + period - now
    return CATCH_UP if left < timedelta() else max(left, _DAY)


def finished_at(folders: Sequence[Folder], now: datetime, period: timedelta) -> datetime:
    """When all that is here will have been read once more, at the share of each day."""
    ends = [now]
    for own, those in by_period(folders, period).items():
        share = _share_bytes(those, now, own)
        ends.append(now + timedelta(days=sum(folder.size_bytes for folder in those) / share if share else 0))
    return max(ends)
