"""What is told by mail: once a day a matter, once when it is over, and nothing of what goes up and down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pacs.model.alerts import Matter, Told, to_tell, without_uids

START = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
STEP = timedelta(minutes=5)


def _told(days: dict[str, list[str]], looks: int, step: timedelta = STEP) -> list[tuple[int, str, str, bool]]:
    """What is told in so many looks; the severity of a check at a look is the last of its list beyond that."""
    known: dict[str, Told] = {}
    found: list[tuple[int, str, str, bool]] = []
    for look in range(looks):
        seen = [Matter(name, each[min(look, len(each) - 1)], "it") for name, each in days.items()]  # type: ignore[arg-type]
        told, known = to_tell(seen, known, START + look * step)
        found += [(look, each.name, each.severity, each.is_over) for each in told]
    return found


def test_what_is_wrong_is_told_at_the_second_look_and_then_once_a_day() -> None:
    looks = 3 * 24 * 12
    assert [look for look, *_rest in _told({"backup": ["critical"]}, looks)] == [1, 289, 577]


def test_what_is_over_is_told_once_after_an_hour() -> None:
    told = _told({"backup": ["critical"] * 5 + ["ok"]}, 600)
    assert told == [(1, "backup", "critical", False), (17, "backup", "ok", True)]


def test_a_short_outage_is_not_told_and_one_that_goes_on_and_off_is_told_once() -> None:
    assert _told({"database": ["critical", "ok"]}, 100) == []
    assert len(_told({"log": (["critical"] * 3 + ["ok"] * 3) * 40}, 240)) == 1


def test_a_warning_is_told_only_where_a_person_must_act_and_again_when_it_becomes_worse() -> None:
    assert _told({"room": ["warning"]}, 50) == []
    assert _told({"conflicts": ["warning"]}, 50) == [(1, "conflicts", "warning", False)]
    told = _told({"lineage": ["warning"] * 10 + ["critical"]}, 50)
    assert [(look, severity) for look, _name, severity, _over in told] == [(1, "warning"), (11, "critical")]


def test_a_clock_that_was_put_back_by_a_year_does_not_keep_it_quiet() -> None:
    matter, known = Matter("backup", "critical", "it"), {}
    later = START + timedelta(days=365)
    for now in (later, later + STEP):
        told, known = to_tell([matter], known, now)
    assert told
    told, known = to_tell([matter], known, START)
    told, known = to_tell([matter], known, START + STEP)
    assert known["backup"].told_at == START or told


def test_no_uid_is_told() -> None:
    text = without_uids("Object 1.2.840.10008.5.1.4 of study 1.2.3.4.5.19700101 at 192.0.2.17, version 1.2.3")
    assert text == "Object (UID) of study (UID) at 192.0.2.17, version 1.2.3"


def test_a_disk_that_fails_and_a_power_cut_are_told_at_once_and_not_each_time() -> None:
    assert _told({"raid": ["critical"]}, 3) == [(0, "raid", "critical", False)]
    assert _told({"ups": ["critical", "ok", "critical", "ok"]}, 10) == [(0, "ups", "critical", False)]
    assert [look for look, *_rest in _told({"raid": ["warning"]}, 3)] == [1], "a rebuild that goes on can wait"
