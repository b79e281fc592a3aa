"""Two nodes: one is the archive, the other its standby."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import peer
from tests.faults.process import wait_for
from tests.peer import RawObject
from tests.restoring import given_back
from tests.sftp_server import SSHD
from tests.synthetic import ct_study
from tests.twins import Twins

pytestmark = pytest.mark.timeout(300)
QUICK = {"PACS_SETTLE_S": "0", "PACS_TIER_INTERVAL_S": "2"}


def _raw(seed: int, count: int = 3) -> list[RawObject]:
    return [RawObject.of(each) for each in ct_study(seed, count)]


@pytest.fixture
def twins(short_folder: Path) -> Iterator[Twins]:
    if not SSHD.exists():
        pytest.skip("Debian's openssh-server is not installed: requirements/debian-test.txt")
    folder = short_folder / f"twins{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    made = Twins.paired(folder, **QUICK)
    yield made
    made.end()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_standby_gets_all_takes_over_fences_the_old_archive_and_hands_back(twins: Twins) -> None:
    first, second = twins.archive, twins.standby
    assert set(peer.store(first.dev.dicom_port, _raw(1))) == {0x0000}
    wait_for(twins.is_level, "the standby does not get all", timeout_s=60)
    assert second.status()["objects"]["waiting"] == 0
    first.pacs("device", "add", "CT room 2", "--ae-title", "CT2", "--host", "127.0.0.1", "--port", "104")

    # While the archive answers, nobody takes over.
    refused = second.dev.pacs("standby", "promote", "--yes", check=False)
    assert (refused.returncode, "answers" in refused.stderr) == (15, True), refused.stderr
    first.power_off()
    before = len(second.dev.log())
    promoted = json.loads(second.pacs("standby", "promote", "--yes", "--json"))
    assert (promoted["took_s"] < 60, promoted["not_here"], promoted["epoch"]) == (True, [], 2)
    print(promoted)
