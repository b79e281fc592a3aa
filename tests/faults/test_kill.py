"""kill -9 of everything, and of the receiver alone, at any moment: whatever was answered with 0x0000 is there, and
nothing is half stored.

This proves the order of the steps, with tests/faults/test_steps.py. What is in the page cache outlives a killed
process, so that the fsyncs are done is proven by killed machines only: tests/image/test_power.py.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from tests.faults.aftermath import assert_nothing_lost, rows_without_bytes
from tests.faults.process import kill, receiver_pid, wait_for
from tests.faults.sender import Account, Senders, missing_or_different
from tests.fix_instance import Dev

#: How often the long form kills.
KILLS = int(os.environ.get("PACS_KILLS", "200"))


def _kill_rounds(dev: Dev, rounds: int, seed: int) -> Account:
    account, moments = Account(), random.Random(seed)
    for number in range(rounds):
        dev.start()
        with Senders(dev.dicom_port, account, [seed * 1000 + number * 10 + sender for sender in range(3)]) as senders:
            time.sleep(moments.uniform(0.5, 2))
            dev.kill_all()
            senders.stop.set()
    return account


def _kill_receiver(dev: Dev, times: int, seed: int) -> Account:
    """Kill the receiver alone, again and again, while three senders go on."""
    account, moments = Account(), random.Random(seed)
    dev.start()
    with Senders(dev.dicom_port, account, [seed * 1000 + sender for sender in range(3)]):
        for _ in range(times):
            stored = len(account.acknowledged)
            wait_for(lambda stored=stored: len(account.acknowledged) > stored, "storing does not go on")  # type: ignore[misc]
            time.sleep(moments.uniform(0, 0.5))
            kill(receiver_pid(dev))
    return account


def test_kill_9_of_everything_loses_nothing_acknowledged(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_ORPHAN_AGE_S="0")
    account = _kill_rounds(dev, 2, seed=1)
    assert len(account.acknowledged) > 10
    assert_nothing_lost(dev.start(), account)


def test_kill_9_of_the_receiver_alone_loses_nothing_acknowledged(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_ORPHAN_AGE_S="0")
    account = _kill_receiver(dev, 4, seed=4)
    assert len(account.acknowledged) > 4
    assert_nothing_lost(dev, account)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_kill_9_of_everything_again_and_again(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_ORPHAN_AGE_S="0")
    account = _kill_rounds(dev, KILLS, seed=2)
    print(f"killed {KILLS} times: {len(account.acknowledged)} acknowledged of {len(account.sent)} sent")
    assert_nothing_lost(dev.start(), account)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_kill_9_of_the_receiver_alone_again_and_again(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_ORPHAN_AGE_S="0")
    account = _kill_receiver(dev, KILLS, seed=5)
    print(f"killed {KILLS} times: {len(account.acknowledged)} acknowledged of {len(account.sent)} sent")
    assert_nothing_lost(dev, account)


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
    assert len(rows_without_bytes(dev)) == 2
