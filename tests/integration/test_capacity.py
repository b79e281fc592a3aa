"""Forecast and planner, as an operator calls them, and the check that warns in time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.archive.forecast import forecast
from pacs.checks import room
from pacs.checks.check import Subject
from pacs.cli.instance import Instance, open_instance
from pacs.errors import VolumeFull
from tests.unit.cli.conftest import Run, run  # noqa: F401 (a fixture)


def _arrive(instance: Instance, weeks: int, bytes_per_day: int, objects_per_day: int = 1000) -> None:
    today = clock.now().date()
    with instance.database.transaction() as connection:
        for back in range(1, 7 * weeks + 1):
            connection.execute(
                "INSERT INTO arrival VALUES (1, %s, %s, %s) ON CONFLICT (tenant_id, day)"
                " DO UPDATE SET size_bytes = excluded.size_bytes, objects = excluded.objects",
                (today - timedelta(days=back), objects_per_day, bytes_per_day),
            )


def _subject(instance: Instance, **settings: object) -> Subject:
    changed = instance.settings.model_copy(update=settings)
    return Subject(changed, instance.database, instance.volumes)


def test_the_check_warns_in_time_and_says_what_to_do(instance: Instance) -> None:
    assert room.run(_subject(instance)).severity == "ok"
    assert "nothing to forecast from" in room.run(_subject(instance)).message
    free = instance.volumes.tier(1)[0].room().free_bytes
    assert free is not None
    for days, severity in ((1000, "ok"), (40, "warning"), (10, "critical")):
        _arrive(instance, 9, free // days)
        result = room.run(_subject(instance))
        assert result.severity == severity, result
        assert "the median of 8 weeks" in result.message
        assert ("docs/operate/disk-full.md" in result.hint) == (severity != "ok")
    patient = room.run(_subject(instance, forecast_warning_days=5, forecast_critical_days=2))
    assert patient.severity == "ok"


def test_a_guess_is_never_critical(instance: Instance) -> None:
    free = instance.volumes.tier(1)[0].room().free_bytes
    assert free is not None
    _arrive(instance, 1, free // 3)
    result = room.run(_subject(instance))
    assert result.severity == "warning"
    assert "a guess" in result.message


def test_short_of_the_reserve_is_critical(instance: Instance) -> None:
    result = room.run(_subject(instance, state_reserve_bytes=1 << 60))
    assert result.severity == "critical"
    assert "0xA700" in result.message
    assert "disk-full.md" in result.hint
    found = forecast(_subject(instance, state_reserve_bytes=1 << 60).settings, instance.database, instance.volumes)
    assert found.growth is None


def test_disks_that_are_shared_count_once(instance: Instance) -> None:
    """The instances of tests have all on one file system."""
    _arrive(instance, 4, 10**6)
    found = forecast(instance.settings, instance.database, instance.volumes)
    assert [(each.disk.name, each.disk.tiers) for each in found.outlooks] == [("state and tier 1 and tier 2", (1, 2))]
    assert found.outlooks[0].disk.holds_state


def test_what_is_kept_for_the_database_is_none_of_a_tiers_room(new_instance: Callable[[], Path]) -> None:
    """The instances of tests have all on one file system."""
    data = new_instance()
    settings = data / "config" / "pacs.toml"
    settings.write_text(settings.read_text() + f"state_reserve_bytes = {1 << 60}\n")
    with open_instance(data) as instance:
        for volume in instance.volumes.all():
            assert volume.room().free_bytes == 0
            with pytest.raises(VolumeFull):
                volume.require_room(1)
        with pytest.raises(VolumeFull, match="disk of the database"):
            instance.store().room.require()


def test_forecast_and_plan_on_the_command_line(
    run: Run,  # noqa: F811
    new_instance: Callable[[], Path],
) -> None:
    data = new_instance()
    outcome = run("--data", data, "capacity", "forecast")
    assert outcome.code == 0
    assert "nothing to forecast from yet" in outcome.out
    outcome = run("--data", data, "capacity", "forecast", "--json")
    found = json.loads(outcome.out)
    assert found["growth"] is None
    assert found["outlooks"][0]["disk"]["holds_state"]
    with open_instance(data) as instance:
        _arrive(instance, 10, 10**9)
    outcome = run("--data", data, "capacity", "forecast")
    assert "1.0 GB and 1,000 objects a day: the median of 8 weeks" in outcome.out
    assert "full" in outcome.out

    plan = ["capacity", "plan", "--years", "9"]
    outcome = run(*plan, "--studies-per-day", "20", "--mean-size", "30MB")
    assert outcome.code == 0, outcome.err
    for words in ("65,700 studies", "2,040 GiB", "restored copy of a drill", "the log of 3 days", "each object once"):
        assert words in outcome.out, words
    made = json.loads(run(*plan, "--studies-per-day", "20", "--mean-size", "30MB", "--json").out)
    assert made["lines"][0]["name"] == "state"
    assert made["terms"]["years"] == 9
    outcome = run(*plan, "--modality", "CT=15x300MB", "--modality", "DX=40x24MBx2", "--growth", "5", "--copies", "2")
    assert "CT   15 studies a day of 300.0 MB and 570 objects: 4.5 GB a day" in outcome.out
    assert "tier 3" in outcome.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--studies-per-day", "20"], "--mean-size"),
        (["--studies-per-day", "20", "--mean-size", "big"], "is no size"),
        (["--modality", "CT=many"], "CT=15x300MB"),
        (["--modality", "CT=15x300MB", "--mean-size", "3MB"], "for each modality"),
    ],
)
def test_a_plan_of_nothing_says_what_it_needs(run: Run, words: list[str], says: str) -> None:  # noqa: F811
    outcome = run("capacity", "plan", "--years", "9", *words)
    assert outcome.code == 2
    assert says in outcome.err
