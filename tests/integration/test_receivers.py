"""Two receivers on one port: limits hold for both together, and one goes on when the other is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.process import kill, wait_for
from tests.faults.wire import CT, EXPLICIT, Wire
from tests.fix_instance import Dev
from tests.synthetic import ct_dataset, encode


def receiver_pids(dev: Dev) -> list[int]:
    found = []
    for pid in dev.pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"receiver" in words and b"run" in words:
            found.append(pid)
    return found


def associate(dev: Dev, stack: ExitStack) -> Wire:
    wire = stack.enter_context(Wire(dev.dicom_port))
    wire.associate([(CT, EXPLICIT)])
    return wire


def store(wire: Wire, number: int) -> int | None:
    image = encode(ct_dataset(1200, number))
    return wire.store(CT, image.sop_instance_uid, [image.dataset], number)


def test_both_take_objects_and_count_together(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_RECEIVERS="2", PACS_ASSOCIATIONS_MAX="12").start()
    pids = receiver_pids(dev)
    assert len(pids) == 2
    with ExitStack() as stack:
        kill(pids[0], signal.SIGSTOP)  # the other takes all that come
        try:
            wires = [associate(dev, stack) for _number in range(4)]
        finally:
            os.kill(pids[0], signal.SIGCONT)
        kill(pids[1], signal.SIGSTOP)
        try:
            wires += [associate(dev, stack) for _number in range(8)]
            with pytest.raises(AssertionError):
                associate(dev, stack)
        finally:
            os.kill(pids[1], signal.SIGCONT)
        assert [store(wire, number) for number, wire in enumerate(wires, 1)] == [0] * 12


def test_one_goes_on_when_the_other_is_killed(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_RECEIVERS="2", PACS_ASSOCIATIONS_MAX="4").start()
    pids = receiver_pids(dev)
    with ExitStack() as stack:
        kill(pids[0], signal.SIGSTOP)
        spared = [associate(dev, stack) for _number in range(2)]
        kill(pids[1], signal.SIGSTOP)
        os.kill(pids[0], signal.SIGCONT)
        for _number in range(2):
            associate(dev, stack)
        os.kill(pids[1], signal.SIGCONT)
        kill(pids[0])
        assert [store(wire, number) for number, wire in enumerate(spared, 1)] == [0, 0]
        assert store(associate(dev, stack), 3) == 0, "the killed one's places are free"
        wait_for(lambda: len(receiver_pids(dev)) == 2, "the killed receiver is not started again")
