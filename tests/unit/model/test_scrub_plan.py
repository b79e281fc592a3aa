"""The days' shares of scrubbing: nothing late, no bursts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.model.scrub_plan import AIM, CATCH_UP, Folder, finished_at, is_overdue, make_plan, share_bytes

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)
PERIOD = 90 * DAY


def folder(age_days: float, size_bytes: int = 1000, name: str = "", is_begun: bool = False) -> Folder:
    return Folder("v", name or f"objects/1/{age_days}/", 10, size_bytes, NOW - age_days * DAY, is_begun)


def live(folders: list[Folder], days: int, arrivals_bytes: int = 0) -> tuple[list[int], int]:
    """Scrub day by day as planned: bytes read each day, and how many folders were ever overdue at an evening."""
    read, late, now = [], 0, NOW
    for day in range(days):
        plan = make_plan(folders, now, PERIOD)
        read.append(plan.size_bytes)
        done = {each.folder for each in plan.folders}
        folders = [replace(each, verified_at=now) if each.folder in done else each for each in folders]
        late += sum(is_overdue(each, now, PERIOD) for each in folders)
        now += DAY
        if arrivals_bytes:
            folders = [*folders, Folder("v", f"new{day}", 1, arrivals_bytes, now)]
    return read, late


def test_nothing_is_planned_for_an_empty_archive() -> None:
    plan = make_plan([], NOW, PERIOD)
    assert (plan.folders, plan.size_bytes, plan.share_bytes, plan.overdue) == ((), 0, 0, 0)
    assert finished_at([], NOW, PERIOD) == NOW


def test_what_was_read_lately_rests() -> None:
    assert make_plan([folder(3), folder(44)], NOW, PERIOD).folders == ()
    assert [each.folder for each in make_plan([folder(3), folder(46)], NOW, PERIOD).folders] == ["objects/1/46/"]


def test_the_oldest_comes_first_and_what_was_begun_before_it() -> None:
    folders = [folder(50, 10), folder(95, 100), folder(94, 100), folder(60, 10, is_begun=True)]
    plan = make_plan(folders, NOW, PERIOD)
    assert [each.folder for each in plan.folders] == ["objects/1/60/", "objects/1/95/"]


def test_an_archive_in_its_stride_is_read_evenly_and_never_late() -> None:
    read, late = live([folder(age / 10, name=str(age)) for age in range(675)], days=300)
    assert late == 0
    assert max(read) <= 2 * 675_000 / (90 * AIM)


def test_an_archive_that_came_in_one_day_is_never_late() -> None:
    """As after a restore: all copies were written on one day, so all are due on one day."""
    read, late = live([folder(0, name=str(number)) for number in range(900)], days=400)
    assert late == 0
    assert max(read) <= 900_000 / 20


def test_a_growing_archive_is_never_late() -> None:
    _read, late = live([], days=500, arrivals_bytes=5000)
    assert late == 0


def test_what_is_overdue_is_caught_up_by_and_by_not_in_a_burst() -> None:
    folders = [folder(400, name=str(number)) for number in range(700)]
    plan = make_plan(folders, NOW, PERIOD)
    assert plan.overdue == 700
    assert len(plan.folders) == 100
    now, left = NOW, folders
    for _day in range(30):
        done = {each.folder for each in make_plan(left, now, PERIOD).folders}
        left = [replace(each, verified_at=now) if each.folder in done else each for each in left]
        now += DAY
    assert make_plan(left, now, PERIOD).overdue == 0


@given(
    st.lists(st.tuples(st.floats(0, 200), st.integers(0, 10**12)), max_size=40),
    st.integers(1, 400),
)
def test_the_share_is_enough_for_every_day_to_come(aged: list[tuple[float, int]], period_days: int) -> None:
    period = period_days * DAY
    folders = [folder(age, size, str(number)) for number, (age, size) in enumerate(aged)]
    share = share_bytes(folders, NOW, period)
    for deadline in (each.verified_at + period for each in folders):
        due = sum(each.size_bytes for each in folders if each.verified_at + period <= deadline)
        left = CATCH_UP if deadline < NOW else max(deadline - NOW, DAY)
        assert share * (left / DAY) >= due * 0.999999
    plan = make_plan(folders, NOW, period)
    assert len(set(plan.folders)) == len(plan.folders)
    assert plan.size_bytes == sum(each.size_bytes for each in plan.folders)


@pytest.mark.parametrize("size_bytes", [0, 1000])
def test_when_all_is_read_once_more(size_bytes: int) -> None:
    folders = [folder(age, size_bytes) for age in range(60)]
    assert NOW <= finished_at(folders, NOW, PERIOD) <= NOW + PERIOD


def test_a_volume_with_a_period_of_its_own_is_read_no_more_often_and_hurries_nobody() -> None:
    """A bucket of ten times the size, once a year; beside it the disk is read as if it were alone."""
    year = 365 * DAY
    folders = [folder(age * 0.9, 1000, f"disk{age}") for age in range(100)]
    alone = sum(live(folders, 365)[0])
    folders += [replace(folder(age * 3.6, 10_000, f"bucket{age}"), volume_id="b", period=year) for age in range(100)]
    read, now = {"v": 0, "b": 0}, NOW
    for _day in range(365):
        plan = make_plan(folders, now, PERIOD)
        for each in plan.folders:
            read[each.volume_id] += each.size_bytes
        done = {each.folder for each in plan.folders}
        folders = [replace(each, verified_at=now) if each.folder in done else each for each in folders]
        assert not any(is_overdue(each, now, PERIOD) for each in folders)
        now += DAY
    assert 1.0 <= read["b"] / 1_000_000 <= 1.5
    assert read["v"] == alone >= 4 * 100_000
    assert share_bytes(folders, now, PERIOD) >= 100_000 / 90 + 1_000_000 / 365
    assert finished_at(folders, now, PERIOD) - now < year
