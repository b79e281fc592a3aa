"""What disks an archive needs: from studies a day, their size and the years, to gigabytes. Pure.

Every figure comes with how it was reckoned, so that a person can check it. Sizes are those of the virtual disks: with
the room that has to stay free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pacs.model.reserve import OTHERS_BYTES
from pacs.model.sizes import format_size

DAYS_A_YEAR = 365
GIB = 1 << 30
#: Tiers are planned to be this full at the end.
FILL = 0.9
#: ... and tier 1 at most at its high mark, from which on it moves down.
HIGH_MARK = 0.8
#: The index, an object [bytes]: 1,100 measured by tests/bench/query_latency.py with a copy of each and 100 objects a
#: study; 2 kB is what it is held below, with further copies, small studies and rows that wait for a vacuum.
INDEX_BYTES = 2000
#: A dump of the index (108 measured, compressed) and the list of objects (some 210) in a recovery point, an object
#: [bytes], and half as much again.
POINT_BYTES = 500
#: max_wal_size of the appliance (roles/postgresql).
WAL_BYTES = 2 * GIB
#: Of the database's log, an object [bytes]: stored, shipped to a repository and moved to another tier. 5.5 to 8.4 kB
#: measured, with 100 objects a study and with 10.
LOG_BYTES = 8000
#: ... and a day on which nothing comes: a segment a minute, of which holes take no room.
LOG_BYTES_PER_DAY = 128 << 20
#: Settings, keys, journal, and what is only there for a while.
SMALL_BYTES = GIB
#: Bytes of an object where nothing is said of how many there are: a CT or MR image of 512 × 512.
OBJECT_BYTES = 526_000

#: Of a typical object, by modality [bytes], where nothing is said of how many there are.
OBJECT_BYTES_OF = {
    "CT": 526_000, "MR": 200_000, "PT": 40_000, "NM": 500_000, "US": 1_500_000, "CR": 8_000_000, "DX": 12_000_000,
    "DR": 12_000_000, "MG": 30_000_000, "XA": 60_000_000, "RF": 5_000_000, "OT": 1_000_000,
}  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What comes of one kind: studies a day, over all days of the week, and what one has."""

    studies_per_day: float
    study_size_bytes: int
    objects_per_study: float
    name: str = ""

    @property
    def bytes_per_day(self) -> float:
        """What arrives."""
        return self.studies_per_day * self.study_size_bytes

    @property
    def objects_per_day(self) -> float:
        """How many objects arrive."""
        return self.studies_per_day * self.objects_per_study


def make_load(
    studies_per_day: float, study_size_bytes: int, objects_per_study: float | None = None, name: str = ""
) -> Load:
    """A load; objects_per_study is reckoned from the size of a typical object if it is not given."""
    typical = OBJECT_BYTES_OF.get(name, OBJECT_BYTES)
    return Load(studies_per_day, study_size_bytes, objects_per_study or max(1, round(study_size_bytes / typical)), name)


@dataclass(frozen=True)
class Terms:
    """For how long, and how it is to be kept.

    growth_percent: a year. copies: of each object within the archive; with two, tier 3 holds the second. compression:
    by what factor what arrives is smaller than the sizes that were given. fast_months: how long studies stay on tier 1.
    points: recovery points that the backup keeps. away_days: how long a repository may be away, its log waiting.
    """

    years: float
    growth_percent: float = 0.0
    copies: int = 1
    compression: float = 1.0
    fast_months: float = 3.0
    points: int = 14
    away_days: float = 3.0


@dataclass(frozen=True)
class Line:
    """A disk to have: its size [bytes], and how that was reckoned."""

    name: Literal["state", "tier 1", "tier 2", "tier 3", "backup"]
    size_bytes: int
    how: str


@dataclass(frozen=True)
class Plan:
    """What is needed. Totals are those at the end of the years."""

    objects: int
    studies: int
    archive_bytes: int
    bytes_per_day_at_the_end: int
    lines: tuple[Line, ...]


def make_plan(loads: list[Load], terms: Terms) -> Plan:
    """The disks for these loads on these terms."""
    days = _days_of_today(terms)
    rate = (1 + terms.growth_percent / 100) ** terms.years
    per_day = sum(load.bytes_per_day for load in loads) / terms.compression
    archive, objects = per_day * days, sum(load.objects_per_day for load in loads) * days
    objects_per_day = sum(load.objects_per_day for load in loads) * rate
    lines = [
        _state(objects, objects_per_day, terms),
        *_tiers(archive, per_day * rate, terms),
        _backup(archive, objects, terms),
    ]
    studies = sum(load.studies_per_day for load in loads) * days
    return Plan(round(objects), round(studies), round(archive), round(per_day * rate), tuple(lines))


def _days_of_today(terms: Terms) -> float:
    """How many days at today's rate the years amount to, the rate growing each year."""
    whole = int(terms.years)
    factor = 1 + terms.growth_percent / 100
    return DAYS_A_YEAR * (sum(factor**year for year in range(whole)) + (terms.years - whole) * factor**whole)


def _state(objects: float, objects_per_day: float, terms: Terms) -> Line:
    index = objects * INDEX_BYTES
    waiting = terms.away_days * (objects_per_day * LOG_BYTES + LOG_BYTES_PER_DAY)
    # What waits for a repository gets half of what the disk has to spare (pacs/backup/log_shipping.py).
    others = 2 * WAL_BYTES + OTHERS_BYTES + SMALL_BYTES + 2 * waiting
    how = (
        f"index {format_size(index)} ({objects:,.0f} objects at {format_size(INDEX_BYTES)}), as much again for the "
        f"restored copy of a drill; log {format_size(WAL_BYTES)}, and as much kept free for it; "
        f"{format_size(2 * waiting)} so that the log of {terms.away_days:g} days can wait for a repository; "
        f"{format_size(OTHERS_BYTES + SMALL_BYTES)} for settings, keys, journal; {FILL:.0%} full at the end"
    )
    return Line("state", _disk((2 * index + others) / FILL), how)


def _tiers(archive: float, per_day: float, terms: Terms) -> list[Line]:
    at_the_end = f"{FILL:.0%} full at the end"
    fast = min(archive, per_day * DAYS_A_YEAR / 12 * terms.fast_months)
    lines = [
        Line(
            "tier 1", _disk(fast / HIGH_MARK),
            f"{terms.fast_months:g} months at the last year's rate, {format_size(per_day)} a day; "
            f"{HIGH_MARK:.0%} full, from where on it moves down",
        ),
        Line("tier 2", _disk(archive / FILL), f"all of the archive, {format_size(archive)}; {at_the_end}"),
    ]  # fmt: skip
    if terms.copies > 1:
        second = (terms.copies - 1) * archive
        how = f"{terms.copies - 1} more of each object, {format_size(second)}; {at_the_end}"
        lines.append(Line("tier 3", _disk(second / FILL), how))
    return lines


def _backup(archive: float, objects: float, terms: Terms) -> Line:
    points = objects * POINT_BYTES * terms.points
    how = (
        f"each object once, {format_size(archive)}; {terms.points} recovery points with the database and the list of "
        f"objects, {format_size(points)} ({POINT_BYTES} bytes an object and point); {FILL:.0%} full at the end"
    )
    return Line("backup", _disk((archive + points) / FILL), how)


def _disk(size_bytes: float) -> int:
    """Rounded up to whole GiB, as disks are made."""
    return max(1, -(-int(size_bytes) // GIB)) * GIB
