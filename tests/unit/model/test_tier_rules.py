"""The rules of tiers: which are refused, and when one is due."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pacs.errors import UsageError
from pacs.model.tier_rules import DEFAULT, Fill, Known, Rule, default_rule, in_force, look, require_sound

KNOWN = Known({1, 2, 3}, {"CT", "ZZ"}, {"ct1"}, {"default"})
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FAR = Rule("far", 2, 3, unused_days=365)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Rule("r", 2, 1, age_days=30), "moves down only"),
        (Rule("r", 3, 1), "moves down only"),
        (Rule("r", 2, 2), "from one tier to another"),
        (Rule("r", 0, 4), "tiers 1, 2 and 3"),
        (Rule("r", 1, 2, 80, None), "needs a low mark"),
        (Rule("r", 1, 2, 70, 80), "lies below"),
        (Rule("r", 1, 2, 101, 80), "lies below"),
        (Rule("r", 1, 2, 80, 0), "would empty tier 1"),
        (Rule("r", 1, 2), "would empty tier 1"),
        (Rule("r", 1, 3, age_days=0.5), "would empty tier 1"),
        (Rule("r", 2, 3, tenants=("default",)), "would empty tier 2"),
        (Rule("r", 1, 2, age_days=-1), "counted from 0"),
        (Rule("r", 1, 2, 80, 70, keep=True), "makes no room"),
        (Rule("r", 1, 2, modalities=("XX",)), "is no modality"),
        (Rule("r", 1, 2, devices=("mr9",)), "no device mr9"),
        (Rule("r", 1, 2, tenants=("other",), age_days=9), "no tenant other"),
        (Rule("r", 1, 2, age_days=9, windows=("late",)), "no window of time"),
        (Rule("r", 1, 2, age_days=9, bytes_per_s_max=1000), "less than 1 MB/s"),
    ],
)
def test_a_rule_that_would_do_harm_or_cannot_be_followed_is_refused(rule: Rule, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        require_sound(rule, [], KNOWN)


def test_a_rule_to_a_tier_without_a_volume_is_refused() -> None:
    with pytest.raises(UsageError, match="no volume of tier 3.*pacs volume add"):
        require_sound(FAR, [], replace(KNOWN, tiers={1, 2}))


def test_sound_rules_are_taken() -> None:
    for rule in (
        FAR,
        Rule("r", 1, 2, modalities=("SM",)),
        Rule("r", 1, 2, devices=("ct1",)),
        Rule("r", 1, 2, modalities=("ZZ",)),
        Rule("r", 1, 2, keep=True),
        Rule("r", 1, 3, age_days=1, age_of="study date", windows=("22:00-06:00",), bytes_per_s_max=5 << 20),
        Rule(DEFAULT, 1, 2, 90, 85),
    ):
        require_sound(rule, [default_rule(80, 70)], KNOWN)


def test_two_rules_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(UsageError, match="other marks for the same tier"):
        require_sound(Rule("mine", 1, 2, 60, 50), [default_rule(80, 70)], KNOWN)
    with pytest.raises(UsageError, match="pacs tier rule remove one"):
        require_sound(Rule("two", 2, 3, 60, 50), [Rule("one", 2, 3, 80, 70)], KNOWN)
    with pytest.raises(UsageError, match="says just that already"):
        require_sound(replace(FAR, name="again"), [FAR], KNOWN)


def test_a_rule_comes_back_from_its_values_as_they_are_in_the_journal() -> None:
    rule = Rule("r", 1, 3, age_days=30, age_of="study date", modalities=("CT", "MR"), windows=("sun 01:00-05:00",))
    values = json.loads(json.dumps(rule.values))
    assert Rule.of(values) == rule
    assert Rule.of(values | {"added_later": 1}) == rule, "what a newer version noted is let be"


def test_the_default_is_followed_until_one_of_its_name_is_added_and_upper_tiers_come_first() -> None:
    default = default_rule(80, 70)
    assert in_force([FAR], default) == [default, FAR]
    mine = Rule(DEFAULT, 1, 2, 60, 50)
    assert in_force([FAR, mine], default) == [mine, FAR]


def test_marks_say_how_much_moves_and_what_has_left_counts_as_gone() -> None:
    rule = default_rule(80, 70)
    assert not look(rule, Fill(79, 21), NOON).is_due
    seen = look(rule, Fill(90, 10), NOON)
    assert (seen.is_due, seen.size_bytes_max) == (True, 20)
    assert not look(rule, Fill(90, 10, leaving_bytes=20), NOON).is_due
    assert look(rule, Fill(90, 10, leaving_bytes=5), NOON).size_bytes_max == 15


def test_a_tier_without_a_bound_is_never_full() -> None:
    assert not look(Rule("r", 2, 3, 1, 0.5), Fill(1 << 50, None), NOON).is_due


def test_a_rule_waits_for_its_window_unless_the_tier_is_full() -> None:
    rule = Rule("r", 1, 2, 80, 70, windows=("22:00-06:00",))
    assert "waits for its window" in look(rule, Fill(90, 10), NOON).why
    assert not look(rule, Fill(90, 10), NOON).is_due
    assert look(rule, Fill(90, 10), NOON.replace(hour=23)).is_due
    full = look(rule, Fill(96, 4), NOON)
    assert (full.is_due, full.is_urgent) == (True, True)
    far = replace(FAR, windows=("22:00-06:00",))
    assert [look(far, Fill(99, 1), at).is_due for at in (NOON, NOON.replace(hour=2))] == [False, True]


def test_words_say_all_that_a_rule_does() -> None:
    rule = Rule("r", 1, 3, age_days=30, devices=("ct1",), windows=("22:00-06:00",), bytes_per_s_max=50_000_000)
    assert rule.words == "tier 1 → 3, 30 days after arrival, device ct1, within 22:00-06:00, at most 50 MB/s"
