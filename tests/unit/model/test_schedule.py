"""Windows of the week and the token bucket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.errors import UsageError
from pacs.model.schedule import Bucket, Window, is_open

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def _at(day: int, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on() -> None:
    window = Window.of("fri 22:00-06:00")
    assert [window.holds(_at(4, 21, 59)), window.holds(_at(4, 22)), window.holds(_at(5, 5, 59))] == [False, True, True]
    assert not window.holds(_at(5, 6))
    assert not window.holds(_at(4, 3)), "Friday's early hours are Thursday's window"


def test_days_may_go_round_the_week() -> None:
    window = Window.of("sat-mon 10:00-12:00")
    assert [day for day in range(7) if window.holds(_at(day, 11))] == [0, 5, 6]


def test_without_a_window_it_is_always_open_and_with_two_in_either() -> None:
    assert is_open((), _at(0, 3))
    windows = ("12:00-13:00", "sun 00:00-24:00")
    assert [is_open(windows, _at(*each)) for each in ((0, 12), (0, 13), (6, 23, 59))] == [True, False, True]


@pytest.mark.parametrize(
    "words", ["", "22-06", "25:00-26:00", "10:00-10:00", "24:00-06:00", "moo 10:00-11:00", "10:61-11:00", "10:00"]
)
def test_what_is_no_window_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match="Write|whole day"):
        Window.of(words)


@given(st.lists(st.tuples(st.integers(1, 5_000_000), st.floats(0, 3)), min_size=1, max_size=50))
def test_a_bucket_never_lets_more_through_than_its_rate_and_one_second_at_once(takes: list[tuple[int, float]]) -> None:
    """Each waits as long as it is told; whenever bytes go, all before them fitted into the time that has passed."""
    rate, now = 1_000_000, 0.0
    bucket, gone = Bucket(rate, now), 0
    for size, pause in takes:
        now += pause
        now += bucket.take(size, now)
        gone += size
        assert gone <= rate * (now + 1) + 1


def test_a_bucket_without_a_bound_never_waits() -> None:
    assert Bucket(None, 0).take(1 << 60, 0) == 0
