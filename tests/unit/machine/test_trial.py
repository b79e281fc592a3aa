"""How a trial ends, and what its first boot is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs import clock
from pacs.machine import trial
from pacs.machine.trial import TRIES, Outcome, Trial


def _answers(*outcomes: bool) -> Callable[[], Outcome]:
    left: Iterator[bool] = iter(outcomes)
    return lambda: Outcome(next(left), "step 2 failed")


def _watch(selftest: Callable[[], Outcome], starting: int = 0, limit_s: float = 60.0) -> Outcome:
    boot = iter([True] * starting)
    return trial.watch(limit_s, lambda: next(boot, False), selftest, lambda _seconds: None)


def test_one_pass_is_enough() -> None:
    assert _watch(_answers(False, False, True)).passed


def test_it_is_given_up_after_three_failures() -> None:
    outcome = _watch(_answers(*[False] * TRIES))
    assert (outcome.passed, outcome.why) == (False, "step 2 failed")


def test_failures_do_not_count_while_the_boot_goes_on() -> None:
    assert _watch(_answers(*[False] * (TRIES + 5), True), starting=7).passed


def test_it_is_given_up_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 50))
    monkeypatch.setattr(clock, "monotonic_s", lambda: float(next(now)))
    outcome = _watch(_answers(*[False] * 10), starting=10, limit_s=120)
    assert not outcome.passed
    assert "within 2 minutes" in outcome.why


def test_the_first_boot_reads_what_it_was_told(tmp_path: Path) -> None:
    (tmp_path / "trial.json").write_bytes(trial.encoded(Trial("one", 90.0)))
    assert trial.read(tmp_path / "trial.json") == Trial("one", 90.0)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]"])
def test_what_it_was_not_told_is_no_upgrade(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trial.json").write_bytes(content)
    assert trial.read(tmp_path / "trial.json").record_id == trial.read(tmp_path / "none").record_id == ""


def test_a_standby_has_passed_when_the_archives_log_comes() -> None:
    assert trial.of_standby({"log": {"is_streaming": True}}).passed
    assert not trial.of_standby({"log": {"is_streaming": False}}).passed
    assert not trial.of_standby({"log": None}).passed
