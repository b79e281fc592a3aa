"""The archive is killed under load, and its standby takes over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import peer
from tests.faults.process import wait_for
from tests.faults.sender import Account, Senders, fetch
from tests.restoring import rows
from tests.twins import Twins

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
QUICK = {"PACS_SETTLE_S": "0", "PACS_TIER_INTERVAL_S": "2", "PACS_ORPHAN_AGE_S": "1"}


def test_what_was_shipped_is_there_byte_for_byte_and_what_was_not_is_listed_and_comes_back(twin_folder: Path) -> None:
    account = Account()
    with Twins.paired(twin_folder, **QUICK) as twins:
        first, second = twins.archive, twins.standby
        with Senders(first.dev.dicom_port, account, [1, 2]):
            wait_for(lambda: _shipped(twins) > 100, "nothing is shipped", timeout_s=240)
            shipped = _shipped_uids(twins)
            first.power_off()
        promoted = second.promoted("--primary-is-off")
        assert promoted["took_s"] < 60

        back = fetch(second.dev.dicom_port, account)
        assert set(shipped) <= back.keys(), "what was at the standby is not given back"
        assert all(account.sent[uid] == raw for uid, raw in back.items())
        # What was acknowledged and is not here: either listed, or so young that the log had not come.
        known = {row["sop_instance_uid"] for row in rows(second.dev, "SELECT sop_instance_uid FROM object")}
        listed = sum(row["objects"] for row in promoted["not_here"])
        assert listed == len(known - back.keys())
        lost = account.acknowledged.keys() - known
        print(
            f"acknowledged {len(account.acknowledged)}, here {len(back)}, listed {listed}, not even known {len(lost)}"
        )

        # The old archive's disks are there again: what only they had comes back.
        first.sshd.start()
        wait_for(
            lambda: account.acknowledged.keys() & known <= fetch(second.dev.dicom_port, account).keys(),
            "what only the old archive had does not come back", timeout_s=120,
        )  # fmt: skip
        first.dev.start(timeout_s=240)
        wait_for(lambda: '"fenced": null' not in first.pacs("lineage", "show", "--json"), "it is not fenced")
        assert peer.store(first.dev.dicom_port, [next(iter(account.sent.values()))]) == [0xA700]
        # What the log had not brought is on those disks too, and found by the comparison of each night.
        second.dev.pacs("reconcile", "run", check=False)
        known = {row["sop_instance_uid"] for row in rows(second.dev, "SELECT sop_instance_uid FROM object")}
        assert account.acknowledged.keys() <= known
        assert account.acknowledged.keys() <= fetch(second.dev.dicom_port, account).keys()


def _shipped(twins: Twins) -> int:
    return int(rows(twins.archive.dev, _SHIPPED.format("count(*) AS number"))[0]["number"])


def _shipped_uids(twins: Twins) -> list[str]:
    return [row["sop_instance_uid"] for row in rows(twins.archive.dev, _SHIPPED.format("o.sop_instance_uid"))]


_SHIPPED = "SELECT {} FROM object o JOIN copy c USING (object_key) JOIN volume v USING (volume_id) WHERE v.tier = 5"
