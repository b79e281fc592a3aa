"""How far a restore is, in figures and words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pacs.model.restore_progress import BulkProgress, bulk_progress, format_duration, in_words

BEGUN = datetime(2026, 11, 22, 3, tzinfo=UTC)


def _after(minutes: float, done: int, lately: int) -> BulkProgress:
    return bulk_progress(
        1000, 10_000_000, done // 10_000, done, BEGUN, BEGUN + timedelta(minutes=minutes), lately, 1800
    )


def test_time_left_is_at_the_pace_of_lately() -> None:
    assert _after(120, 5_000_000, 1_800_000).left_s == pytest.approx(5000)
    assert _after(10, 5_000_000, 5_000_000).left_s == pytest.approx(600), "half in ten minutes"


def test_nobody_can_say_when_nothing_comes() -> None:
    stuck = _after(120, 5_000_000, 0)
    assert stuck.left_s is None
    assert in_words(stuck) == "50 % is back: 500 of 1,000 objects, 5.0 MB of 10.0 MB; nothing came lately"


def test_all_of_it_and_nothing_of_it() -> None:
    assert _after(120, 10_000_000, 0).left_s == 0
    assert in_words(_after(120, 10_000_000, 0)) == "100 % is back: 1,000 of 1,000 objects, 10.0 MB of 10.0 MB"
    assert bulk_progress(0, 0, 0, 0, BEGUN, BEGUN, 0, 1800).percent == 100
    assert "3 minutes left" in in_words(_after(1, 2_500_000, 2_500_000))


def test_durations() -> None:
    assert [format_duration(s) for s in (0, 1, 59, 119, 120, 7100, 7200, 172_000, 200_000)] == [
        "0 seconds", "1 second", "59 seconds", "119 seconds", "2 minutes", "118 minutes", "2 hours", "2 days", "2 days",
    ]  # fmt: skip
