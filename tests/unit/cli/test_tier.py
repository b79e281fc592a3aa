"""`pacs tier` and `pacs study`: rules, pins, plans and status, for a person and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs import clock
from pacs.checks import tiers as check
from pacs.checks.check import Subject
from pacs.cli.instance import open_instance
from pacs.index import recalls
from pacs.index.runs import record_run
from tests.synthetic import ct_study
from tests.tiers import add_volume, store
from tests.unit.cli.conftest import Run

STUDY = ct_study(1, 2)
UID = STUDY[0].study_instance_uid


@pytest.fixture
def data(new_instance: Callable[[], Path]) -> Path:
    """An instance with a study and three tiers."""
    data = new_instance()
    with open_instance(data) as instance:
        store(instance, STUDY)
        add_volume(instance, 3, "far1")
    return data


def test_rules_are_added_shown_planned_and_removed(run: Run, data: Path) -> None:
    added = run("--data", data, "tier", "rule", "add", "ct", "--from", 1, "--to", 3, "--modality", "ct")
    assert (added.code, added.err) == (0, "")
    assert "modality CT" in added.out
    listed = json.loads(run("--data", data, "tier", "rule", "list", "--json").out)
    assert [each["name"] for each in listed] == ["default", "ct"]
    assert "tier 1 → 2, from 80 % full down to 70 %" in run("--data", data, "tier", "rule", "list").out
    plan = {each["rule"]["name"]: each for each in json.loads(run("--data", data, "tier", "plan", "--json").out)}
    assert [move["study_instance_uid"] for move in plan["ct"]["moves"]] == [UID]
    assert plan["ct"]["size_bytes"] > 16_000
    shown = run("--data", data, "tier", "plan").out
    assert UID in shown and "arrived 0 days ago, never retrieved" in shown
    assert run("--data", data, "tier", "rule", "remove", "ct").code == 0
    assert run("--data", data, "tier", "rule", "remove", "ct").code == 9


def test_a_rule_that_is_refused_says_what_to_do_and_a_dry_run_changes_nothing(run: Run, data: Path) -> None:
    refused = run("--data", data, "tier", "rule", "add", "r", "--from", 1, "--to", 2, "--modality", "QQ")
    assert (refused.code, refused.out) == (2, "")
    assert "QQ is no modality" in refused.err
    of = run("--data", data, "tier", "rule", "add", "r", "--from", 1, "--to", 2, "--age", 9, "--age-of", "birth")
    assert of.code == 2 and "study date" in of.err
    tried = run("--data", data, "tier", "rule", "add", "r", "--from", 1, "--to", 2, "--modality", "CT", "--dry-run")
    assert UID in tried.out
    assert len(json.loads(run("--data", data, "tier", "rule", "list", "--json").out)) == 1


def test_pins(run: Run, data: Path) -> None:
    assert run("--data", data, "study", "pin", UID, "--reason", "teaching").code == 0
    (pin,) = json.loads(run("--data", data, "study", "pins", "--json").out)
    assert (pin["study_instance_uid"], pin["reason"]) == (UID, "teaching")
    assert "teaching" in run("--data", data, "study", "pins").out
    assert "0 studies" in run("--data", data, "tier", "move").out
    assert run("--data", data, "study", "unpin", UID).code == 0
    assert run("--data", data, "study", "unpin", UID).code == 9
    assert run("--data", data, "study", "pin", "1.2.3").code == 9
    assert "1 studies, 2 objects" in run("--data", data, "tier", "move").out


def test_status_tells_tiers_rules_and_recalls(run: Run, data: Path) -> None:
    with open_instance(data) as instance, instance.database.transaction() as connection:
        key = connection.execute("SELECT study_key FROM study").fetchone()["study_key"]
        recalls.request(connection, [key], "person")
    status = json.loads(run("--data", data, "tier", "status", "--json").out)
    assert [(tier["tier"], [each["name"] for each in tier["volumes"]]) for tier in status["tiers"]] == [
        (1, ["tier1"]),
        (2, ["tier2"]),
        (3, ["far1"]),
    ]
    assert status["tiers"][0]["volumes"][0]["holds"]["objects"] == 2
    assert [rule["name"] for rule in status["rules"]] == ["default"]
    assert [each["state"] for each in status["recalls"]] == ["open"]
    shown = run("--data", data, "tier", "status").out
    for words in ("tier 1", "far1", "2 objects", "rule default", "recalled study"):
        assert words in shown
    (data / "far1").rename(data / "away")
    assert "not here" in run("--data", data, "tier", "status").out


def test_what_is_at_hand_needs_no_recall(run: Run, data: Path) -> None:
    assert "at hand" in run("--data", data, "study", "recall", UID).out


def test_the_check_tells_of_recalls_that_were_given_up_and_of_moves_that_failed(data: Path) -> None:
    with open_instance(data) as instance:
        subject = Subject(instance.settings, instance.database, instance.volumes)
        assert check.run(subject).severity == "ok"
        result = {"failed": 0, "errors": ["rule far: No room left."]}
        record_run(instance.database, "tier", clock.now(), False, result)
        assert check.run(subject).message == "rule far: No room left."
        record_run(instance.database, "tier", clock.now(), True, {"failed": 0, "errors": []})
        assert check.run(subject).severity == "ok"
        with instance.database.transaction() as connection:
            recalls.request(connection, [_study_key(instance)], "asked")
            recalls.try_later(connection, _recall_key(connection), "the volume is away", 0, True)
        failed = check.run(subject)
        assert failed.severity == "warning" and "the volume is away" in failed.message


def _study_key(instance):  # type: ignore[no-untyped-def]
    with instance.database.transaction() as connection:
        return connection.execute("SELECT study_key FROM study").fetchone()["study_key"]


def _recall_key(connection):  # type: ignore[no-untyped-def]
    return connection.execute("SELECT recall_key FROM recall").fetchone()["recall_key"]
