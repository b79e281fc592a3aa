"""Has a device that sends gone silent? Judged by its own rhythm of the weeks before, not by a number of hours. Pure.

Time is cut into slots of three hours; what is known of a device are the slots in which it sent. For each slot of the
week, and for each day of it, the weeks before say how likely the device sends then. A silence is as unlikely as the
product of what it stays away from: nobody misses a scanner on a Sunday on which it never sent. It is told of when it is
too unlikely, and clearly more so than the longest that the device itself has had in these weeks: one whose holidays and
service days are known is given them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

SLOT_S = 3 * 3600
_WEEK = 7 * 24 * 3600 // SLOT_S
#: How far back a rhythm is looked for [slots], and how long it must have been known [slots].
HISTORY, KNOWN_FOR = 8 * _WEEK, 2 * _WEEK
#: In how many slots or days it must have sent: who sends now and then has no rhythm.
_TIMES = 8
#: A silence that comes once in so many is too unlikely; and by so much it must surpass the longest one known.
_ONCE_IN, _SURPASSES = 300.0, 1.5


class Silence(NamedTuple):
    """What is to be said of a device: when it last sent, and whether that is too long ago for it."""

    last_at: datetime
    is_silent: bool


def slot_of(when: datetime) -> int:
    """The number of the slot that a time is in."""
    return int(when.timestamp() // SLOT_S)


def judge(slots: Collection[int], now: datetime) -> Silence | None:
    """Judge a device by the slots that it sent in. None if it never sent."""
    if not slots:
        return None
    known = sorted(set(slots))
    last, at = known[-1], slot_of(now)
    known = [slot for slot in known if slot > last - HISTORY]
    last_at = datetime.fromtimestamp(last * SLOT_S, UTC)
    per_day = 24 * 3600 // SLOT_S
    silent = _is_silent(known, at, _WEEK) or _is_silent(
        sorted({slot // per_day for slot in known}), at // per_day, 7
    )  # fmt: skip
    return Silence(last_at, silent and last - known[0] >= KNOWN_FOR)


def _is_silent(active: Sequence[int], now: int, period: int) -> bool:
    """The same for slots of any length, `period` of which are a week; the one that `now` is in is not over."""
    if len(active) < _TIMES:
        return False
    weeks = (active[-1] - active[0]) / period
    surprise = []
    for phase in range(period):
        times = sum(slot % period == phase for slot in active)
        # Half a time is added to both sides: what never happened is not impossible, what always did is not certain.
        surprise.append(-math.log(1 - min(times + 0.5, weeks + 0.5) / (weeks + 1)))

    def of(first: int, beyond: int) -> float:
        whole, rest = divmod(max(0, beyond - first), period)
        return whole * sum(surprise) + sum(surprise[slot % period] for slot in range(first, first + rest))

    usual = max(of(one + 1, other) for one, other in pairwise(active))
    return of(active[-1] + 1, now) > max(math.log(_ONCE_IN), _SURPASSES * usual)
