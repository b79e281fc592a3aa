"""kill -9 of everything, at any moment: whatever was answered with 0x0000 is there, and nothing is half stored.

This proves the order of the steps. What is in the page cache outlives a killed process, so that the fsyncs are done
is proven by killed machines only: tests/image/test_power.py.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.faults.sender import Account, Senders, missing_or_different
from tests.fix_instance import Dev


def _kill_rounds(dev: Dev, rounds: int, seed: int) -> Account:
    account, moments = Account(), random.Random(seed)
    for number in range(rounds):
        dev.start()
        with Senders(dev.dicom_port, account, [seed * 1000 + number * 10 + sender for sender in range(3)]) as senders:
            time.sleep(moments.uniform(0.5, 3))
            dev.kill_all()
            senders.stop.set()
    return account


def _compare(dev: Dev, account: Account) -> None:
    dev.start()
    assert missing_or_different(dev.dicom_port, account) == []
    # Rows and files agree; what is without a row was never acknowledged, and is found.
    assert dev.pacs("reconcile", "run").returncode == 0
    assert missing_or_different(dev.dicom_port, account) == []


def test_kill_9_of_everything_loses_nothing_acknowledged(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_ORPHAN_AGE_S="0")
    account = _kill_rounds(dev, 3, seed=1)
    assert len(account.acknowledged) > 20
    _compare(dev, account)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_kill_9_forty_times(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_ORPHAN_AGE_S="0")
    account = _kill_rounds(dev, 40, seed=2)
    print(f"killed 40 times: {len(account.acknowledged)} acknowledged of {len(account.sent)} sent")
    _compare(dev, account)


def test_the_comparison_would_see_a_loss(new_dev: Callable[..., Dev]) -> None:
    """The test of the test: one file taken away, one changed."""
    dev = new_dev()
    account = _kill_rounds(dev, 1, seed=3)
    first, second, *_rest = sorted((dev.data / "tier1" / "objects").rglob("*.dcm"))
    first.unlink()
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    dev.start()
    assert len(missing_or_different(dev.dicom_port, account)) == 2


def test_a_killed_receiver_is_started_again(new_dev: Callable[..., Dev]) -> None:
    import os
    import signal
    from pathlib import Path

    dev = new_dev().start()
    for pid in dev.pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        if b"receiver" in words:
            os.kill(pid, signal.SIGKILL)
    account = Account()
    with Senders(dev.dicom_port, account, [4001]):
        ends = time.monotonic() + 30
        while len(account.acknowledged) < 5 and time.monotonic() < ends:
            time.sleep(0.1)
    assert len(account.acknowledged) >= 5
    assert missing_or_different(dev.dicom_port, account) == []
