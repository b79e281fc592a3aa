"""The bandwidth limit."""

from __future__ import annotations

import pytest

from pacs import clock
from pacs.archive import pace
from pacs.archive.pace import Pace


class Time:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def sleep(self, duration_s: float) -> None:
        """Go on."""
        self.now_s += duration_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Time as the limit sees it."""
    made = Time()
    monkeypatch.setattr(pace.time, "sleep", made.sleep)
    monkeypatch.setattr(clock, "monotonic_s", lambda: made.now_s)
    return made


def test_so_many_bytes_take_so_long(time: Time) -> None:
    limit = Pace(1e6)
    for _piece in range(1000):
        limit.spend(10_000)
    assert time.now_s == pytest.approx(110, abs=0.1)


def test_a_pause_is_not_saved_up(time: Time) -> None:
    limit = Pace(1e6)
    limit.spend(1_000_000)
    time.now_s += 1000
    limit.spend(1_000_000)
    limit.spend(1_000_000)
    assert time.now_s == pytest.approx(1103)


def test_one_piece_may_be_larger_than_a_second_lets_through(time: Time) -> None:
    Pace(1e6).spend(5_000_000)
    assert time.now_s == pytest.approx(105)


def test_no_limit_waits_for_nothing(time: Time) -> None:
    Pace(None).spend(1 << 40)
    Pace(0).spend(1 << 40)
    assert time.now_s == 100
