"""Two nodes: one is the archive, the other its standby."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pacs.backup.standby_files import StandbyFiles
from pacs.model.audit_chain import Head
from tests import peer
from tests.faults.process import wait_for
from tests.integration.test_audit import events
from tests.peer import RawObject
from tests.restoring import check_of, given_back
from tests.synthetic import ct_study
from tests.twins import Node, Twins

#: Five starts of a node, and three copies of a database.
pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
QUICK = {"PACS_SETTLE_S": "0", "PACS_TIER_INTERVAL_S": "2"}


def _raw(seed: int, count: int = 3) -> list[RawObject]:
    return [RawObject.of(each) for each in ct_study(seed, count)]


def _stored(node: Node, seed: int) -> dict[str, bytes]:
    raw = _raw(seed)
    assert set(peer.store(node.dev.dicom_port, raw)) == {0x0000}
    return {each.sop_instance_uid: each.dataset for each in raw}


def test_a_standby_takes_over_fences_the_old_archive_which_follows_and_takes_over_again(twin_folder: Path) -> None:
    with Twins.paired(twin_folder, **QUICK) as twins:
        first, second = twins.archive, twins.standby
        known = _stored(first, 1)
        first.pacs("device", "add", "CT room 2", "--ae-title", "CT2", "--host", "127.0.0.1", "--port", "104")
        wait_for(twins.is_level, "the standby does not get all", timeout_s=90)
        assert second.status()["objects"]["waiting"] == 0
        assert check_of(first.dev, "standby")[0] == "ok"
        _refuses_while_the_archive_answers(second)

        first.power_off()
        promoted = second.promoted("--primary-is-off")
        assert (promoted["took_s"] < 60, promoted["not_here"], promoted["epoch"]) == (True, [], 2)
        assert given_back(second.dev, _raw(1)) == known
        assert "CT2" in second.pacs("device", "list")
        assert check_of(second.dev, "standby") == (
            "warning", "since the promotion of this node nothing is sent by itself",
        )  # fmt: skip
        second.pacs("standby", "release")
        known |= _stored(second, 2)

        # The old archive wakes up: it takes nobody, and says why.
        first.sshd.start()
        first.dev.start()
        wait_for(lambda: "epoch" in (_fenced(first) or ""), "the old archive is not fenced")
        assert set(peer.store(first.dev.dicom_port, _raw(3))) == {0xA700}
        # It follows: what it had is there yet, and only the rest is copied.
        first.dev.stop()
        first.pacs("standby", "follow", "--yes")
        first.start_as_standby()
        twins = Twins(second, first)
        wait_for(twins.is_level, "the old archive does not get all", timeout_s=90)

        # Handed over, it takes over again, and nothing is lost; nobody has to be off.
        second.pacs("standby", "hand-over")
        assert set(peer.store(second.dev.dicom_port, _raw(4))) == {0xA700}
        assert first.promoted()["not_here"] == []
        assert given_back(first.dev, [*_raw(1), *_raw(2)]) == known
        _stored(first, 5)

        # Ended in its last step and given again, a promotion changes nothing more.
        StandbyFiles(first.dev.data).put_following("follows")
        again = json.loads(first.pacs("standby", "promote", "--yes", "--json"))
        assert (again["not_here"], again["epoch"] > 3) == ([], True)

        # The other node is given up: the archive goes on alone.
        first.pacs("standby", "release")
        second.dev.stop()
        first.pacs("standby", "leave")
        assert first.status()["twin"] is None
        assert check_of(first.dev, "standby") == ("ok", "no standby")
        assert given_back(first.dev, [*_raw(1), *_raw(2), *_raw(5)]).keys() >= known.keys()


def test_the_audit_log_of_a_standby_that_takes_over_goes_on_from_the_archive_s(twin_folder: Path) -> None:
    with Twins.paired(twin_folder, **QUICK) as twins:
        first, second = twins.archive, twins.standby
        _stored(first, 1)
        wait_for(lambda: len(events(first.dev, "received")) == 1, "the arrival is no event", 60)
        head = Head.parse(first.pacs("audit", "head"))
        copies = second.dev.data / "tier1/audit"

        def is_there() -> bool:
            return any(f'"head":"{head.digest}"' in each.read_text() for each in copies.glob("*.jsonl"))

        wait_for(is_there, "the log does not get to the standby", timeout_s=150)
        wait_for(twins.is_level, "the standby does not get all", timeout_s=90)
        first.power_off()
        second.promoted("--primary-is-off")
        said = second.pacs("audit", "verify", "--head", str(head))
        assert "heads that were kept elsewhere fit" in said
        assert len(events(second.dev, "received")) == 1, "no event stands there twice, and none is lost"
        second.pacs("standby", "release")
        _stored(second, 2)
        wait_for(lambda: len(events(second.dev, "received")) == 2, "the next arrival is no event", 60)
        assert second.dev.pacs("audit", "verify", "--head", str(head)).returncode == 0


def test_a_hand_over_that_was_taken_back_while_it_waited_hands_nothing_over(twin_folder: Path) -> None:
    """As one is left waiting by a workstation that died."""
    with Twins.paired(twin_folder, **QUICK) as twins:
        first, second = twins.archive, twins.standby
        _stored(first, 6)
        wait_for(twins.is_level, "the standby does not get all", timeout_s=90)
        second.dev.stop()  # its log does not come any more, its disks are there
        words = [sys.executable, "-m", "pacs.cli.main", "--data", str(first.dev.data), "standby", "hand-over"]
        left = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: _fenced(first), "it is not paused")
        assert set(peer.store(first.dev.dicom_port, _raw(7))) == {0xA700}
        first.pacs("standby", "hand-over", "--cancel")
        _stored(first, 8)
        second.start_as_standby()
        _said, error = left.communicate(timeout=120)
        assert (left.returncode, "taken back" in error) == (15, True), error
        assert _fenced(first) is None
        _stored(first, 9)
        _refuses_while_the_archive_answers(second)


def _fenced(node: Node) -> str | None:
    found: str | None = json.loads(node.pacs("lineage", "show", "--json"))["fenced"]
    return found


def _refuses_while_the_archive_answers(standby: Node) -> None:
    refused = standby.dev.pacs("standby", "promote", "--yes", check=False)
    assert (refused.returncode, "answers" in refused.stderr) == (15, True), refused.stderr
