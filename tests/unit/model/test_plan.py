"""The planner's sums, checked by hand."""

from __future__ import annotations

import pytest

from pacs.model.plan import GIB, Plan, Terms, make_load, make_plan

MB, TB = 10**6, 10**12


def _sizes(plan: Plan) -> dict[str, int]:
    return {line.name: line.size_bytes for line in plan.lines}


def test_twenty_studies_a_day_for_nine_years() -> None:
    plan = make_plan([make_load(20, 30 * MB)], Terms(years=9))
    assert plan.studies == 20 * 365 * 9 == 65_700
    assert plan.archive_bytes == 65_700 * 30 * MB == 1_971_000 * MB
    assert plan.objects == 65_700 * 57  # of 526 kB each
    sizes = _sizes(plan)
    assert list(sizes) == ["state", "tier 1", "tier 2", "backup"]
    assert sizes["tier 1"] == 64 * GIB  # 600 MB × 365 ÷ 4 = 54.75 GB, 80 % full: 68.4 GB
    assert sizes["tier 2"] == 2040 * GIB  # 1.971 TB, 90 % full: 2.19 TB
    # 2 × 7.5 GB, 5.5 GiB beside, twice 3 days of (1,140 × 8 kB + 128 MiB): 21.8 GB, 90 % full: 24.2 GB
    assert sizes["state"] == 23 * GIB
    assert sizes["backup"] > sizes["tier 2"]
    assert all(line.how for line in plan.lines)


def test_each_term_does_what_it_says() -> None:
    loads = [make_load(20, 30 * MB)]
    plain = make_plan(loads, Terms(years=2))
    grown = make_plan(loads, Terms(years=2, growth_percent=10))
    assert grown.archive_bytes == pytest.approx(plain.archive_bytes * 1.05)
    assert grown.bytes_per_day_at_the_end == pytest.approx(600 * MB * 1.21)
    half = make_plan(loads, Terms(years=0.5, growth_percent=10))
    assert half.archive_bytes == pytest.approx(600 * MB * 365 / 2, abs=1)
    packed = make_plan(loads, Terms(years=2, compression=2))
    assert packed.archive_bytes == plain.archive_bytes / 2
    assert packed.objects == plain.objects
    three = _sizes(make_plan(loads, Terms(years=9, copies=3)))
    assert three["tier 3"] == pytest.approx(2 * three["tier 2"], rel=0.01)
    slow = _sizes(make_plan(loads, Terms(years=2, fast_months=0.01)))
    assert slow["tier 1"] == GIB
    longer = _sizes(make_plan(loads, Terms(years=1, fast_months=120)))
    assert longer["tier 1"] == -(-int(600 * MB * 365 / 0.8) // GIB) * GIB, "no more than there is"
    more_points = make_plan(loads, Terms(years=9, points=28))
    assert _sizes(more_points)["backup"] > _sizes(make_plan(loads, Terms(years=9)))["backup"]


def test_a_repository_that_is_away_for_long_needs_room_for_the_log() -> None:
    loads = [make_load(100, 500 * MB, 1000)]
    none, week = (_sizes(make_plan(loads, Terms(years=1, away_days=days)))["state"] for days in (0, 7))
    assert week - none == pytest.approx(2 * 7 * (100_000 * 8000 + (128 << 20)) / 0.9, abs=GIB)


def test_modalities_add_up_and_have_objects_of_their_own_size() -> None:
    ct, dx = make_load(15, 300 * MB, name="CT"), make_load(40, 24 * MB, name="DX")
    assert (ct.objects_per_study, dx.objects_per_study) == (570, 2)
    assert make_load(1, 5, name="DX").objects_per_study == 1
    assert make_load(1, 300 * MB, 900, "CT").objects_per_study == 900
    both, alone = make_plan([ct, dx], Terms(years=1)), make_plan([ct], Terms(years=1))
    assert both.archive_bytes == alone.archive_bytes + 365 * 40 * 24 * MB
    assert both.objects == 365 * (15 * 570 + 40 * 2)
