"""`pacs scrub`, `pacs repair`, `pacs reconcile` and `pacs check --metrics`: what they print and end with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pacs.cli.instance import open_instance
from tests.planting import LocalSite, copies, double, store
from tests.synthetic import ct_study
from tests.unit.cli.conftest import Run


def test_from_damage_to_repair_as_an_administrator_sees_it(run: Run, new_instance: Callable[[], Path]) -> None:
    data = new_instance()
    outcome = run("--data", data, "scrub", "status")
    assert outcome.code == 0 and "there is no copy yet" in outcome.out and "never ran" in outcome.out
    with open_instance(data) as instance:
        made = ct_study(1, 3)
        store(instance, made)
        double(instance, instance.volumes.tier(2)[0])
        site = LocalSite(instance.volumes.tier(2)[0], Path(instance.volumes.tier(2)[0].location))
        victim, other = copies(instance, site.volume)[:2]
        site.put(victim["path"], b"nonsense")
        site.delete(other["path"])

    outcome = run("--data", data, "scrub", "run", "--all", "--volume", "tier1", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["copies"] == 3
    outcome = run("--data", data, "scrub", "run", "--all", "--rate", 0)
    assert outcome.code == 10
    assert "6 copies in 2 folders" in outcome.out and "1 bad, 1 missing" in outcome.out
    assert "pacs repair list" in outcome.err
    outcome = run("--data", data, "check")
    assert outcome.code in (1, 2)
    assert "WARNING  copies" in outcome.out and "2 copies are missing or bad" in outcome.out

    for words in (("scrub", "bad"), ("repair", "list")):
        listed = run("--data", data, *words)
        assert listed.code == 0
        assert made[0].study_instance_uid in listed.out and "tier2" in listed.out and victim["path"] in listed.out
        assert len(json.loads(run("--data", data, *words, "--json").out)) == 2
    outcome = run("--data", data, "repair", "run")
    assert outcome.code == 0 and outcome.out.startswith("2 copies repaired")
    assert json.loads(run("--data", data, "repair", "list", "--json").out) == []
    outcome = run("--data", data, "reconcile", "run")
    assert outcome.code == 0 and "missing              0" in outcome.out
    outcome = run("--data", data, "check")
    assert "OK       copies" in outcome.out and "2 copies were repaired so far" in outcome.out

    outcome = run("--data", data, "scrub", "status")
    assert "100.0%" in outcome.out and "at rest; last" in outcome.out
    found = json.loads(run("--data", data, "scrub", "status", "--json").out)
    assert [each["copies"] for each in found["volumes"]] == [3, 3]
    assert found["is_running"] is False and found["since"] and found["last_run"]["result"]["bad"] == 1


def test_what_cannot_be_repaired_ends_with_10_and_says_what_to_send_again(
    run: Run, new_instance: Callable[[], Path]
) -> None:
    data = new_instance()
    with open_instance(data) as instance:
        made = ct_study(2, 1)
        store(instance, made)
        site = LocalSite(instance.volumes.tier(1)[0], Path(instance.volumes.tier(1)[0].location))
        site.delete(copies(instance)[0]["path"])
    assert run("--data", data, "reconcile", "run").code == 10
    outcome = run("--data", data, "repair", "run")
    assert outcome.code == 10 and "pacs repair list" in outcome.err
    outcome = run("--data", data, "repair", "list")
    assert "none: send again" in outcome.out and "No other good copy" in outcome.out
    outcome = run("--data", data, "check")
    assert outcome.code == 2 and made[0].study_instance_uid in outcome.out


def test_a_volume_that_is_not_known_or_not_here_is_said(run: Run, new_instance: Callable[[], Path]) -> None:
    data = new_instance()
    with open_instance(data) as instance:
        store(instance, ct_study(3, 1))
    outcome = run("--data", data, "scrub", "run", "--volume", "nonsense")
    assert outcome.code == 9 and "pacs volume list" in outcome.err
    (data / "tier2").rename(data / "unplugged")
    outcome = run("--data", data, "scrub", "run", "--volume", "tier2")
    assert outcome.code == 5
    outcome = run("--data", data, "scrub", "run", "--all")
    assert outcome.code == 4 and "tier2" in outcome.err
    assert run("--data", data, "reconcile", "run").code == 4


def test_metrics_end_well_even_where_nothing_does(run: Run, new_instance: Callable[[], Path], tmp_path: Path) -> None:
    outcome = run("--data", new_instance(), "check", "--metrics")
    assert outcome.code == 0
    assert "# TYPE pacs_check_severity gauge" in outcome.out and 'pacs_scrub_copies{volume="tier1"}' not in outcome.err
    outcome = run("--data", tmp_path / "nowhere", "check", "--metrics")
    assert outcome.code == 0
    assert 'pacs_check_severity{check="instance"} 2' in outcome.out
