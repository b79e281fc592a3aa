"""When the disks are full, from what arrived each day. Pure.

Growth is the median of the last weeks' totals: whole weeks, as few images come on a Sunday, and the median, as a
migration of an old archive, a holiday or a week of trouble is no growth. Where there is a year of it, this year's weeks
against last year's say by how much it rises. Then the days to come are gone through one by one: what arrives fills
tier 1, the rules move it down, the index grows; until something has no room left.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

#: How far it is looked ahead [days]: twenty years.
HORIZON_DAYS = 7300
#: Weeks that count, and how many make more than a guess.
WEEKS = 8
WEEKS_MIN = 2
_YEAR_WEEKS = 52
#: A rise or fall of more than this a year is not carried on.
_YEARLY_MAX = 1.5


@dataclass(frozen=True)
class Arrived:
    """What came on a day."""

    objects: int
    size_bytes: int


@dataclass(frozen=True)
class Growth:
    """How the archive grows. yearly: by what factor the rate changes in a year. basis: from what, for a person."""

    objects_per_day: float
    bytes_per_day: float
    yearly: float
    basis: str
    #: From so little that it is a guess.
    is_rough: bool


def measure_growth(days: Mapping[date, Arrived], today: date) -> Growth | None:
    """How the archive grew up to today, which is not over and does not count. None: there is nothing to go by."""
    known = sorted(day for day in days if day < today)
    if not known:
        return None
    first = known[0]
    weeks = min(WEEKS, ((today - first).days - 1) // 7)  # the first day of all was seldom a whole one
    if weeks < WEEKS_MIN:
        return _rough(days, first, today)
    totals = [_week(days, today, number) for number in range(weeks)]
    objects, size_bytes = (statistics.median(column) / 7 for column in zip(*totals, strict=True))
    yearly = _yearly(days, first, today, size_bytes)
    rise = "" if yearly == 1 else f", {(yearly - 1) * 100:+.0f} % a year"
    return Growth(objects, size_bytes, yearly, f"the median of {weeks} weeks{rise}", False)


def _rough(days: Mapping[date, Arrived], first: date, today: date) -> Growth:
    """From the days that there are; the first of them counts only if it is the only one."""
    begin = min(first + timedelta(days=1), today - timedelta(days=1))
    span = (today - begin).days
    came = [arrived for day, arrived in days.items() if begin <= day < today]
    objects, size_bytes = sum(each.objects for each in came), sum(each.size_bytes for each in came)
    words = f"{span} days only, so a guess" if span > 1 else "one day only, so a guess"
    return Growth(objects / span, size_bytes / span, 1, words, True)


def _week(days: Mapping[date, Arrived], end: date, number: int) -> tuple[int, int]:
    """Objects and bytes of the number-th week before the day `end`."""
    last = end - timedelta(days=7 * number)
    came = [days[day] for back in range(1, 8) if (day := last - timedelta(days=back)) in days]
    return sum(each.objects for each in came), sum(each.size_bytes for each in came)


def _yearly(days: Mapping[date, Arrived], first: date, today: date, bytes_per_day: float) -> float:
    """By what factor the rate rose since the same weeks a year ago; 1 if there are none."""
    year_ago = today - timedelta(weeks=_YEAR_WEEKS)
    if (year_ago - first).days <= 7 * WEEKS:
        return 1
    then = statistics.median(_week(days, year_ago, number)[1] for number in range(WEEKS)) / 7
    if not then:
        return 1
    return round(min(_YEARLY_MAX, max(1 / _YEARLY_MAX, bytes_per_day / then)), 2)


@dataclass(frozen=True)
class Disk:
    """A file system, or those of a tier that has several. tiers: which lie on it.

    holds_state: the database grows on it. free_bytes: what may yet be used; None has no bound. kept_bytes: what is free
    beside, for others.
    """

    name: str
    tiers: tuple[int, ...]
    used_bytes: int
    free_bytes: int | None
    kept_bytes: int = 0
    holds_state: bool = False


@dataclass(frozen=True)
class Move:
    """A rule that moves all kinds of studies down: between marks [percent], or from an age on [days].

    keep: it leaves the copy above.
    """

    from_tier: int
    to_tier: int
    high_percent: float | None = None
    low_percent: float | None = None
    age_days: float | None = None
    keep: bool = False


@dataclass(frozen=True)
class Outlook:
    """What comes of a disk. full_in_days: None is not within HORIZON_DAYS. moves_in_days: when it first moves down."""

    disk: Disk
    full_in_days: int | None
    moves_in_days: int | None = None


def format_days(full_in_days: int | None) -> str:
    """When it is full, for a person: `full in 41 days`, `full in 3.2 years`."""
    if full_in_days is None:
        return f"not full within {HORIZON_DAYS // 365} years"
    if full_in_days == 0:
        return "is full"
    if full_in_days < 100:
        return f"full in {full_in_days} {'day' if full_in_days == 1 else 'days'}"
    if full_in_days < 730:
        return f"full in {full_in_days / 30.4:.0f} months"
    return f"full in {full_in_days / 365:.1f} years"


def look_ahead(disks: Sequence[Disk], moves: Sequence[Move], growth: Growth, index_bytes: float) -> list[Outlook]:
    """What comes of each disk. index_bytes: what the database grows by, an object."""
    ahead = _Ahead(disks, moves, growth, index_bytes)
    for day in range(HORIZON_DAYS):
        if not ahead.live(day):
            break
    return [Outlook(run.disk, run.full_on, run.moves_on) for run in ahead.running]


@dataclass
class _Running:
    """A disk on a day to come."""

    disk: Disk
    used: float
    full_on: int | None = None
    moves_on: int | None = None

    @property
    def room(self) -> float:
        """What still fits."""
        disk = self.disk
        if disk.free_bytes is None:
            return float("inf")
        return max(0.0, disk.used_bytes + disk.free_bytes - self.used)

    def at(self, percent: float) -> float:
        """Bytes that are so many percent of it."""
        disk = self.disk
        return float("inf") if disk.free_bytes is None else (disk.used_bytes + disk.free_bytes) * percent / 100

    def take(self, size_bytes: float, day: int) -> float:
        """Take as much as there is room for; return how much that was."""
        taken = min(size_bytes, self.room)
        self.used += taken
        if taken < size_bytes and self.full_on is None:
            self.full_on = day
        return taken


@dataclass
class _Lot:
    """What arrived on one day and lies on a tier. copied_to: lower tiers that have it too."""

    day: int
    size_bytes: float
    copied_to: frozenset[int] = frozenset()


class _Ahead:
    """The days to come."""

    def __init__(self, disks: Sequence[Disk], moves: Sequence[Move], growth: Growth, index_bytes: float) -> None:
        self.running = [_Running(disk, disk.used_bytes) for disk in disks]
        self.of_tier = {tier: run for run in self.running for tier in run.disk.tiers}
        self.moves = sorted(
            (move for move in moves if {move.from_tier, move.to_tier} <= set(self.of_tier)),
            key=lambda move: (move.from_tier, move.to_tier),
        )
        self.growth, self.index_bytes = growth, index_bytes
        #: What lies on each tier, the oldest first. What is there already is taken to have come at today's rate, and to
        #: be copied already where a rule does that.
        self.lots = {tier: self._past(tier, run) for tier, run in self.of_tier.items()}
        self._copied_through = dict.fromkeys(self.moves, -1)

    def _past(self, tier: int, run: _Running) -> list[_Lot]:
        rate = self.growth.bytes_per_day
        if rate <= 0:
            return []
        whole = min(HORIZON_DAYS, int(run.used // rate))
        copied = frozenset(move.to_tier for move in self.moves if move.keep and move.from_tier == tier)
        lots = [_Lot(-whole - 1, run.used - whole * rate), *(_Lot(-back, rate) for back in range(whole, 0, -1))]
        for lot in lots:
            lot.copied_to = copied
        return [lot for lot in lots if lot.size_bytes > 0]

    def live(self, day: int) -> bool:
        """Let a day come. False if what arrives has no room: then nothing more happens."""
        factor = self.growth.yearly ** (day / 365)
        came, objects = self.growth.bytes_per_day * factor, self.growth.objects_per_day * factor
        for run in self.running:
            if run.disk.holds_state and run.take(objects * self.index_bytes, day) < objects * self.index_bytes:
                return False
        if self.lots:
            tier = min(self.lots)
            if self.of_tier[tier].take(came, day) < came:
                return False
            self.lots[tier] += [_Lot(day, came)] if came else []
        for move in self.moves:
            if self.of_tier[move.from_tier] is not self.of_tier[move.to_tier]:
                (self._copy if move.keep else self._move)(move, day)
        return True

    def _move(self, move: Move, day: int) -> None:
        source, target = self.of_tier[move.from_tier], self.of_tier[move.to_tier]
        wanted = source.used
        if move.high_percent is not None and move.low_percent is not None:
            if source.used <= source.at(move.high_percent):
                return
            wanted = source.used - source.at(move.low_percent)
        lots, moved = self.lots[move.from_tier], 0.0
        while lots and moved < wanted and day - lots[0].day >= (move.age_days or 0):
            lot = lots[0]
            size_bytes = min(lot.size_bytes, wanted - moved)
            if move.to_tier not in lot.copied_to:
                size_bytes = target.take(size_bytes, day)
                if not size_bytes:
                    break
                self.lots[move.to_tier].append(_Lot(lot.day, size_bytes))
            moved += size_bytes
            lot.size_bytes -= size_bytes
            if lot.size_bytes <= 0:
                lots.pop(0)
        source.used -= moved
        if moved and source.moves_on is None:
            source.moves_on = day

    def _copy(self, move: Move, day: int) -> None:
        through = day - (move.age_days or 0)
        for lot in reversed(self.lots[move.from_tier]):
            if lot.day <= self._copied_through[move]:
                break
            if lot.day > through or move.to_tier in lot.copied_to:
                continue
            if self.of_tier[move.to_tier].take(lot.size_bytes, day) < lot.size_bytes:
                return
            lot.copied_to |= {move.to_tier}
            self.lots[move.to_tier].append(_Lot(lot.day, lot.size_bytes))
        self._copied_through[move] = int(through)
