"""A device is missed by its own rhythm: after hours, days or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pacs.model.rhythm import judge, slot_of

MONDAY = datetime(2026, 9, 7, tzinfo=UTC)


def _sent(hours: Iterable[int], days: Iterable[int] = range(5), weeks: int = 8, but: Iterable[int] = ()) -> set[int]:
    """Slots of a device that sends at these hours of these days of the week; but: days since MONDAY without."""
    found = set()
    for week in range(weeks):
        for day in days:
            if week * 7 + day not in set(but):
                found |= {slot_of(MONDAY + timedelta(weeks=week, days=day, hours=hour)) for hour in hours}
    return found


def _silent_after(slots: set[int], days_max: float = 60) -> float | None:
    """How long after its last slot it is missed [days]; None: not within days_max."""
    last = datetime.fromtimestamp(max(slots) * 3 * 3600, UTC)
    for hours in range(0, int(24 * days_max), 3):
        found = judge(slots, last + timedelta(hours=hours))
        assert found is not None
        if found.is_silent:
            return hours / 24
    return None


def test_a_scanner_that_is_busy_all_day_is_missed_within_a_working_day_and_not_at_the_weekend() -> None:
    busy = _sent(range(7, 19, 3))
    missed = _silent_after(busy)  # its last images came on a Friday afternoon
    assert missed is not None and 2.5 < missed < 4, "on Monday"


def test_a_device_that_runs_day_and_night_is_missed_in_hours() -> None:
    missed = _silent_after(_sent(range(0, 24, 3), range(7)))
    assert missed is not None and missed <= 0.5


def test_one_that_sends_once_a_day_is_missed_in_days() -> None:
    missed = _silent_after({slot_of(MONDAY + timedelta(days=day, hours=7 + day * 5 % 11)) for day in range(56)})
    assert missed is not None and 1.5 < missed < 5


def test_a_holiday_that_is_known_makes_it_more_patient() -> None:
    hours, week_off = range(7, 19, 3), range(21, 26)
    used_to, strict = _silent_after(_sent(hours, but=week_off)), _silent_after(_sent(hours))
    assert used_to is not None and strict is not None and used_to > strict + 3


def test_who_sends_now_and_then_or_has_just_begun_is_not_missed() -> None:
    assert judge([], MONDAY) is None
    assert _silent_after({slot_of(MONDAY + timedelta(days=day)) for day in (0, 9, 30, 41)}) is None
    assert _silent_after(_sent(range(7, 19, 3), weeks=1)) is None


def test_what_was_long_ago_is_no_rhythm_any_more() -> None:
    old = {slot_of(MONDAY - timedelta(days=400 + day)) for day in range(60)}
    assert _silent_after(old | {slot_of(MONDAY)}) is None
