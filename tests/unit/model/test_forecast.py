"""Growth is what the usual weeks bring; the forecast goes through the days to come as the rules do."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, timedelta

import pytest

from pacs.model.forecast import HORIZON_DAYS, Arrived, Disk, Growth, Move, format_days, look_ahead, measure_growth

TODAY = date(2026, 11, 22)
GB = 10**9
STEADY = Growth(100, 1 * GB, 1, "", False)
MARKS = Move(1, 2, 80, 70)


def _days(count: int, gigabytes: int = 2) -> dict[date, Arrived]:
    """So many days up to yesterday, less on a Saturday and nothing on a Sunday."""
    weekday = {5: 0.2, 6: 0.0}
    made = {}
    for back in range(1, count + 1):
        day = TODAY - timedelta(days=back)
        part = weekday.get(day.weekday(), 1.0)
        if part:
            made[day] = Arrived(int(1000 * part), int(gigabytes * GB * part))
    return made


A_WEEK = 5.2  # times that of a working day


def test_growth_is_that_of_whole_weeks_whatever_today_is() -> None:
    for shift in range(7):
        growth = measure_growth(_days(100), TODAY - timedelta(days=shift))
        assert growth is not None
        assert growth.bytes_per_day == pytest.approx(A_WEEK * 2 * GB / 7)
        assert growth.objects_per_day == pytest.approx(A_WEEK * 1000 / 7)
        assert not growth.is_rough
        assert growth.basis == "the median of 8 weeks"


def test_neither_a_migration_nor_a_holiday_nor_today_changes_it() -> None:
    days = _days(100)
    usual = measure_growth(days, TODAY)
    for back in range(1, 19):
        days[TODAY - timedelta(days=back)] = Arrived(900_000, 700 * GB)
    for back in range(30, 40):
        days.pop(TODAY - timedelta(days=back), None)
    days[TODAY] = Arrived(10**6, 10**15)
    assert measure_growth(days, TODAY) == usual


def test_a_young_archive_says_so() -> None:
    assert measure_growth({}, TODAY) is None
    assert measure_growth({TODAY: Arrived(5, 5)}, TODAY) is None, "today is not over"
    one = measure_growth({TODAY - timedelta(days=1): Arrived(10, 100)}, TODAY)
    assert one is not None
    assert (one.bytes_per_day, one.is_rough) == (100, True)
    assert "one day" in one.basis
    # Three days, the first of them begun at noon.
    three = {TODAY - timedelta(days=back): Arrived(10, size) for back, size in ((3, 1), (2, 100), (1, 300))}
    growth = measure_growth(three, TODAY)
    assert growth is not None
    assert growth.bytes_per_day == 200
    assert growth.is_rough
    assert "2 days only" in growth.basis


def test_a_rise_since_last_year_is_carried_on_within_bounds() -> None:
    days = _days(500)
    for day in days:
        if (TODAY - day).days < 300:
            days[day] = Arrived(days[day].objects, int(days[day].size_bytes * 1.2))
    growth = measure_growth(days, TODAY)
    assert growth is not None
    assert growth.yearly == 1.2
    assert "+20 % a year" in growth.basis
    tripled = {day: replace(came, size_bytes=came.size_bytes * (3 if (TODAY - day).days < 300 else 1))
               for day, came in _days(500).items()}  # fmt: skip
    assert measure_growth(tripled, TODAY).yearly == 1.5  # type: ignore[union-attr]


def test_a_lone_disk_is_full_when_its_room_is_used_up() -> None:
    (only,) = look_ahead([Disk("tier 1", (1,), 100 * GB, 41 * GB)], [], STEADY, 0)
    assert only.full_in_days == 41
    (full,) = look_ahead([Disk("tier 1", (1,), 100 * GB, 0)], [], STEADY, 0)
    assert full.full_in_days == 0
    (bucket,) = look_ahead([Disk("tier 1", (1,), 100 * GB, None)], [], STEADY, 0)
    assert bucket.full_in_days is None
    (still,) = look_ahead([Disk("tier 1", (1,), 100 * GB, 1)], [], replace(STEADY, bytes_per_day=0), 0)
    assert still.full_in_days is None


def test_the_index_fills_the_states_disk() -> None:
    state = Disk("state", (), 1 * GB, 8 * GB, kept_bytes=2 * GB, holds_state=True)
    tier = Disk("tier 1", (1,), 0, None)
    outlooks = look_ahead([state, tier], [], replace(STEADY, objects_per_day=10_000), 2000)
    assert outlooks[0].full_in_days == 8 * GB // (10_000 * 2000)
    assert outlooks[1].full_in_days is None


def test_what_moves_down_fills_the_tier_below_and_only_then_the_one_above() -> None:
    first, second = Disk("tier 1", (1,), 0, 100 * GB), Disk("tier 2", (2,), 0, 1000 * GB)
    one, two = look_ahead([first, second], [MARKS], STEADY, 0)
    assert one.moves_in_days == 80  # from 80 % on
    assert two.full_in_days == pytest.approx(1070, abs=11)  # 1000 GB, and what tier 1 holds: 70 to 80
    assert one.full_in_days == pytest.approx(1100, abs=1)  # both full
    alone = look_ahead([first], [MARKS], STEADY, 0)[0]
    assert alone.full_in_days == 100


def test_three_tiers_by_age_and_a_copy_that_stays() -> None:
    disks = [Disk(f"tier {n}", (n,), 0, free) for n, free in ((1, 100 * GB), (2, 1000 * GB), (3, None))]
    outlooks = look_ahead(disks, [Move(1, 2, age_days=30), Move(2, 3, age_days=365)], STEADY, 0)
    assert [each.full_in_days for each in outlooks] == [None, None, None]
    assert outlooks[0].moves_in_days == 30
    assert outlooks[1].moves_in_days == 365
    # A copy on tier 2 at once, the one above goes by its marks: tier 2 takes each object once.
    kept = look_ahead(disks[:2], [Move(1, 2, keep=True), MARKS], STEADY, 0)
    assert kept[1].full_in_days == pytest.approx(1000, abs=1)
    assert kept[0].full_in_days == pytest.approx(1100, abs=1)  # 100 GB that have no second copy


def test_tiers_on_one_disk_do_not_make_room_for_one_another() -> None:
    (only,) = look_ahead([Disk("tiers 1 and 2", (1, 2), 0, 50 * GB)], [MARKS], STEADY, 0)
    assert only.full_in_days == 50


def test_a_rising_rate_fills_sooner() -> None:
    disk = Disk("tier 1", (1,), 0, 2000 * GB)
    steady = look_ahead([disk], [], STEADY, 0)[0].full_in_days
    rising = look_ahead([disk], [], replace(STEADY, yearly=1.5), 0)[0].full_in_days
    assert steady is not None and rising is not None
    assert rising < steady == 2000


def test_whatever_is_there_it_ends_and_no_disk_takes_more_than_it_has() -> None:
    rng = random.Random(4)
    for _ in range(30):
        disks = [
            Disk(f"tier {n}", (n,), rng.randrange(10**12), rng.choice([None, rng.randrange(10**13)]),
                 rng.randrange(10**10), n == 1)
            for n in range(1, rng.randint(1, 3) + 1)
        ]  # fmt: skip
        moves = [
            rng.choice([MARKS, Move(1, 2, age_days=rng.randrange(900)), Move(1, 3, keep=True), Move(2, 3, 90, 50)])
            for _ in range(3)
        ]
        growth = Growth(rng.randrange(10**5), rng.randrange(10**11), rng.choice([0.7, 1, 1.3]), "", False)
        for outlook in look_ahead(disks, moves, growth, 2000):
            assert outlook.full_in_days is None or 0 <= outlook.full_in_days < HORIZON_DAYS


def test_days_for_a_person() -> None:
    said = [format_days(days) for days in (0, 1, 41, 200, 1168, None)]
    assert said == ["is full", "full in 1 day", "full in 41 days", "full in 7 months", "full in 3.2 years",
                    "not full within 20 years"]  # fmt: skip
