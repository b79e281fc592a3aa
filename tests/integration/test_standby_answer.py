"""Success answers that wait for the standby."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import peer
from tests.faults.process import wait_for
from tests.peer import RawObject
from tests.restoring import check_of, rows
from tests.synthetic import ct_study
from tests.twins import Twins

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
QUICK = {"PACS_SETTLE_S": "0", "PACS_TIER_INTERVAL_S": "2", "PACS_STANDBY_ANSWER_S": "5"}


def _send(twins: Twins, seed: int) -> set[int | None]:
    return set(peer.store(twins.archive.dev.dicom_port, [RawObject.of(each) for each in ct_study(seed, 3)]))


def _at_standby(twins: Twins) -> dict[str, int]:
    (found,) = rows(
        twins.standby.dev,
        "SELECT count(DISTINCT o.object_key) AS objects, count(DISTINCT c.object_key) AS copies FROM object o"
        " LEFT JOIN (copy c JOIN volume v"
        " ON v.volume_id = c.volume_id AND v.tier = 5) ON c.object_key = o.object_key",
    )
    return found


def test_what_is_acknowledged_is_at_the_standby_and_the_setting_says_what_happens_without_it(
    twin_folder: Path,
) -> None:
    with Twins.paired(twin_folder, **QUICK) as twins:
        wait_for(twins.is_level, "the standby does not follow", timeout_s=120)
        twins.archive.dev.stop()
        twins.archive.dev.environment["PACS_STANDBY_ANSWER"] = "wait-or-refuse"
        twins.archive.dev.start(timeout_s=240)
        wait_for(lambda: _send(twins, 1) == {0x0000}, "nothing is acknowledged", timeout_s=120)
        assert _send(twins, 2) == {0x0000}
        # From here on nothing more comes to the standby: what was acknowledged is on its disks.
        twins.archive.sshd.stop()
        wait_for(lambda: _at_standby(twins) == {"objects": 6, "copies": 6}, "not all of it is at the standby")
        twins.archive.sshd.start()
        wait_for(twins.is_level, "the standby does not follow again", timeout_s=120)

        twins.standby.sshd.stop()
        assert 0xA700 in _send(twins, 3)
        # What was refused is here all the same, and counts once it is sent again.
        twins.standby.sshd.start()
        wait_for(lambda: _send(twins, 3) == {0x0000}, "it is not taken when the standby is back", timeout_s=120)

        twins.archive.dev.stop()
        twins.archive.dev.environment["PACS_STANDBY_ANSWER"] = "wait-or-degrade"
        twins.archive.dev.start(timeout_s=240)
        twins.standby.sshd.stop()
        assert _send(twins, 4) == {0x0000}
        severity, said = check_of(twins.archive.dev, "standby")
        assert (severity, "acknowledged without it" in said) == ("critical", True), said
