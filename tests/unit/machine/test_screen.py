"""The text on the display, in every state that an operator may find it in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pacs.machine.screen import Check, Facts, addresses, compose, note_trial
from pacs.machine.storage import Answer

READY = Answer(ready=True)
FACTS = Facts("1.2.3", "pacs", ("192.0.2.7",), "SHA256:abc", READY, (Check("database", "ok", "answers"),))


def test_it_says_where_to_go() -> None:
    text = compose(FACTS)
    for part in ("1.2.3", "https://192.0.2.7/", "104 and 11112", "AE title PACS", "admin@192.0.2.7", "SHA256:abc"):
        assert part in text
    assert "Healthy: all 1 checks" in text


def test_when_a_restore_was_last_proven_is_seen_whatever_else_is_wrong() -> None:
    proven = Check("drill", "ok", "Last proven restore: 6 hours ago, 1.2 million objects known, 400 sampled, 0 differ")
    ill = Check("room", "warning", "tier 1 is full in 3 days", "Enlarge it.")
    for checks in ((proven,), (ill, proven)):
        assert "Last proven restore: 6 hours ago" in compose(replace(FACTS, checks=checks))
    failed = Check("drill", "critical", "the last drill found faults.", "Look.")
    assert "CRITICAL drill" in compose(replace(FACTS, checks=(failed,)))


def test_ipv6_in_a_url() -> None:
    assert "https://[2001:db8::1]/" in compose(replace(FACTS, addresses=("2001:db8::1",)))


def test_without_an_address_it_says_what_to_look_at() -> None:
    assert "No network address. Is the network card connected" in compose(replace(FACTS, addresses=()))


def test_before_the_storage_was_looked_at() -> None:
    assert "Starting" in compose(replace(FACTS, storage=None, checks=None))


def test_storage_that_is_not_ready_stands_out() -> None:
    text = compose(replace(FACTS, storage=Answer(ready=False, problems=("tier2 is missing. Attach its disk.",))))
    assert "NOT READY" in text
    assert "tier2 is missing. Attach its disk." in text
    assert "Healthy" not in text


def test_offered_disks() -> None:
    text = compose(replace(FACTS, storage=replace(READY, offered=(("/dev/sde", 200 << 30),))))
    assert "/dev/sde  200 GiB" in text


def test_what_is_not_well_comes_with_its_hint() -> None:
    bad = Check("volumes", "critical", "tier 1 is full", "Enlarge its disk.")
    text = compose(replace(FACTS, checks=(*(FACTS.checks or ()), bad)))
    assert "CRITICAL volumes: tier 1 is full Enlarge its disk." in text
    assert "Healthy" not in text


def test_what_could_not_be_looked_at_is_counted_and_not_listed() -> None:
    blind = tuple(Check(name, "unknown", "not looked at", "") for name in ("backup", "drill"))
    text = compose(replace(FACTS, checks=(Check("database", "critical", "does not answer", "Restart it."), *blind)))
    assert "CRITICAL database" in text and "2 checks could not be made without the database." in text
    assert "backup" not in text


def test_a_service_that_does_not_answer() -> None:
    assert "does not answer" in compose(replace(FACTS, checks=None))


def test_failed_units_come_first() -> None:
    text = compose(replace(FACTS, failed_units=("pacs-migrate.service",)))
    assert "pacs-migrate.service failed" in text
    assert "Healthy" not in text


@pytest.mark.parametrize("word", ["short", "x" * 200])
def test_long_texts_are_wrapped(word: str) -> None:
    text = compose(replace(FACTS, storage=Answer(ready=False, problems=(" ".join([word] * 30),))))
    assert all(len(line) <= 78 or line.strip("* ") == word for line in text.splitlines())
    assert text.count(word) == 30


def test_addresses_that_others_reach_ipv4_first() -> None:
    def info(family: str, local: str, scope: str = "global") -> dict[str, str]:
        return {"family": family, "local": local, "scope": scope}

    assert addresses(
        [
            {"ifname": "lo", "addr_info": [info("inet", "127.0.0.1", "host")]},
            {
                "ifname": "ens4",
                "addr_info": [
                    info("inet6", "fe80::1", "link"),
                    info("inet6", "2001:db8::1"),
                    info("inet", "192.0.2.7"),
                ],
            },
        ]
    ) == ("192.0.2.7", "2001:db8::1")


def test_no_text_of_ours_is_beyond_ascii() -> None:
    """The display's font may have nothing else."""
    for path in Path(__file__).parents[3].glob("pacs/machine/*.py"):
        path.read_text("utf-8").encode("ascii")


def test_a_trial_copy_says_so_first_and_at_the_prompt(tmp_path: Path) -> None:
    text = compose(replace(FACTS, trial="this is a trial copy, made 2026-11-22"))
    assert text.index("TRIAL COPY: this is a trial copy") < text.index("Web")
    note_trial("this is a trial copy", tmp_path / "run" / "trial")
    assert (tmp_path / "run" / "trial").read_text() == "this is a trial copy\n"
    note_trial("", tmp_path / "run" / "trial")
    assert not (tmp_path / "run" / "trial").exists()
