"""What the tests of upgrades ask of an appliance, and wait for, over its restarts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.image.exchange import ExchangeError, make_study, send
from tests.image.installation import Installation

TRIAL_LIMIT_S = 1800.0
_LIMIT_S = 900.0


def status(site: Installation) -> dict[str, Any]:
    """What `pacs upgrade status` says."""
    return dict(json.loads(site.machine.ssh("sudo pacs upgrade status --json").stdout))


def wait_for_end(site: Installation, version: str) -> dict[str, Any]:
    """Wait until the upgrade to that version has ended, over restarts; the status then.

    A login may come before a replaced system disk has looked at the data: then the last upgrade is still another one.
    """
    deadline = time.monotonic() + TRIAL_LIMIT_S
    while True:
        answer = site.machine.ssh("sudo pacs upgrade status --json", check=False)
        found = dict(json.loads(answer.stdout)) if answer.returncode == 0 else {}
        record = found.get("record") or {}
        if record.get("outcome") and record["target"]["version"] == version:
            return found
        if answer.returncode == 255:  # ssh's own: it restarts
            site.machine.wait_for_ssh()
        if time.monotonic() > deadline:
            raise site.machine.failure(f"the upgrade does not end: {answer.stdout}{answer.stderr}")
        time.sleep(5)


def send_study(site: Installation, folder: Path, seed: int) -> None:
    """Store a study of five images there."""
    if site.refuses_us():
        site.add_device()
    before = len(site.account.acknowledged)
    send(site.dicom_port, make_study(folder, seed, 5, 128), site.account)
    assert len(site.account.acknowledged) == before + 5


def send_patiently(site: Installation, folder: Path, seed: int) -> None:
    """As soon as it takes images, while it starts."""
    deadline = time.monotonic() + _LIMIT_S
    while True:
        try:
            return send_study(site, folder, seed)
        except (ExchangeError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def wait_until_put_right(site: Installation) -> None:
    """After the index went back in time: until what was stored since is found again."""
    deadline = time.monotonic() + _LIMIT_S
    while True:
        told = json.loads(site.machine.ssh("sudo pacs lineage show --json").stdout)["reverted"]
        if told and told["reconciled_at"]:
            return
        assert time.monotonic() < deadline, told
        time.sleep(5)


def failed_units(site: Installation) -> str:
    """The units that failed; empty if none did."""
    return str(site.host().check_output("systemctl list-units --state=failed --plain --no-legend"))
