"""kill -9 of a receiver, and a failing disk, at each single step of storing an object.

The steps are not listed here: one store is recorded with strace, and then each of its system calls in turn is the last
of the process, or fails. The rest of `pacs dev` lives on and starts the receiver again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.aftermath import assert_nothing_lost, files_without_row
from tests.faults.process import receiver_pid, wait_for
from tests.faults.sender import Account
from tests.faults.trace import Call, Tracer, of_the_store
from tests.faults.wire import EXPLICIT, Wire
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode

OUT_OF_RESOURCES = 0xA700
#: The calls of the short form: what changes a file, a folder or the database, and the answer.
_CHANGES = ("openat", "write", "fsync", "rename", "sendto")
#: What no step depends on.
_IRRELEVANT = ("futex", "getpid", "gettid", "getrandom", "mmap", "munmap", "brk", "madvise", "epoll_create1", "ioctl")


def _raw(seed: int, number: int) -> RawObject:
    return RawObject.of(encode(ct_dataset(seed, number, 128, 128)))


def _send(dev: Dev, account: Account, *objects: RawObject) -> list[int | None]:
    """Send objects over one association, each in three pieces; note and return the answers."""
    statuses = []
    with Wire(dev.dicom_port, timeout_s=20) as wire:
        wire.associate([(objects[0].sop_class_uid, EXPLICIT)])
        for raw in objects:
            third = len(raw.dataset) // 3
            pieces = [raw.dataset[:third], raw.dataset[third : 2 * third], raw.dataset[2 * third :]]
            with account.lock:
                account.sent[raw.sop_instance_uid] = raw
            try:
                status = wire.store(raw.sop_class_uid, raw.sop_instance_uid, pieces)
            except OSError:
                status = None
            account.note(raw, status)
            statuses.append(status)
    return statuses


def _recorded(dev: Dev, account: Account, seed: int, folder: Path, which: int) -> list[Call]:
    """The calls of the store of an association's first or second object, when everything was done once before."""
    objects = [_raw(seed, number) for number in range(1, 1 + which)]
    assert _send(dev, account, *objects) == [0x0000] * which
    objects = [_raw(seed, 10 + number) for number in range(which)]
    with Tracer(receiver_pid(dev), folder / "record") as tracer:
        assert _send(dev, account, *objects) == [0x0000] * which
    steps = [call for call in of_the_store(tracer.calls(), which) if call.name not in _IRRELEVANT]
    assert {"openat", "write", "fsync", "rename", "sendto", "recvfrom"} <= {call.name for call in steps}
    return steps


def _before(seed: int, number: int, which: int) -> list[RawObject]:
    """What an association stores before the object that the step is of."""
    return [_raw(seed, 1000 + 10 * number + each) for each in range(1, which)]


def _kill_at_each(dev: Dev, steps: list[Call], account: Account, seed: int, folder: Path, which: int) -> None:
    for number, step in enumerate(steps):
        raw, pid = _raw(seed, 100 + number), receiver_pid(dev)
        assert _send(dev, account, _raw(seed, 1)) == [0x0000]
        with Tracer(pid, folder / "kill", f"trace={step.name}", _injection(step, "signal=SIGKILL")):
            # Room is asked for now and then: what does not come with these objects comes with the next ones.
            more = [_raw(seed, 50_000 + 10 * number + each) for each in range(5 if step.name == "statfs" else 0)]
            _send(dev, account, *_before(seed, number, which), raw, *more)
            wait_for(lambda pid=pid: receiver_pid(dev) != pid, f"the receiver outlived {step}", 20)  # type: ignore[misc]
        wait_for(lambda: _is_served(dev), "the receiver is not started again")
        # Every second one is sent again at once, as a modality does; the others leave what they left.
        if raw.sop_instance_uid not in account.acknowledged and number % 2:
            assert _send(dev, account, raw) == [0x0000], f"killed at {step}, it is not taken again"


def _injection(step: Call, what: str) -> str:
    return f"inject={step.name}:{what}:when={step.ordinal}"


def _is_served(dev: Dev) -> bool:
    try:
        with Wire(dev.dicom_port, timeout_s=5) as wire:
            return wire.associate([("1.2.840.10008.1.1", EXPLICIT)]) == {1}
    except (OSError, AssertionError):
        return False


def test_kill_9_between_the_steps_that_change_something(new_dev: Callable[..., Dev], tmp_path: Path) -> None:
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account()
    steps = [call for call in _recorded(dev, account, 700, tmp_path, 2) if call.name in _CHANGES]
    _kill_at_each(dev, steps, account, 700, tmp_path, 2)
    assert files_without_row(dev), "no kill left anything behind: were they where they should be?"
    assert_nothing_lost(dev, account)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("which", [1, 2])
def test_kill_9_at_every_system_call(new_dev: Callable[..., Dev], tmp_path: Path, which: int) -> None:
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account()
    steps = _recorded(dev, account, 710, tmp_path, which)
    _kill_at_each(dev, steps, account, 710, tmp_path, which)
    print(f"killed at each of {len(steps)} system calls of a store")
    assert_nothing_lost(dev, account)


_OTHERS = [("EIO", 1), ("ENOSPC", 2), ("EROFS", 2)]


def _is_on_disk(call: Call) -> bool:
    """Whether a call is one of the volume's: its words name a path there."""
    # An advice that is not taken is no fault: the fsync decides.
    return "/tier1" in call.words and call.name != "fadvise64"


@pytest.mark.parametrize(
    "error, which", [("EIO", 2), ("ENOSPC", 1), *(pytest.param(*each, marks=pytest.mark.long) for each in _OTHERS)]
)
def test_each_call_on_the_disk_that_fails_is_answered_with_a700(
    new_dev: Callable[..., Dev], tmp_path: Path, error: str, which: int
) -> None:
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account()
    steps = [call for call in _recorded(dev, account, 720, tmp_path, which) if _is_on_disk(call)]
    assert {"openat", "statfs", "write", "fsync", "close", "rename"} <= {call.name for call in steps}
    for number, step in enumerate(steps):
        # A connection of the thread's own that is made anew shifts the numbers by a call or two.
        for shift in (0, 1, 2, -1, -2):
            if _fails_as_it_should(dev, account, step, error, (which, 10 * number + shift, shift), tmp_path):
                break
        else:
            raise AssertionError(f"{step} was never hit")
    assert_nothing_lost(dev, account)


def _fails_as_it_should(
    dev: Dev, account: Account, step: Call, error: str, trial: tuple[int, int, int], folder: Path
) -> bool:
    """Let a call fail; False if it was another one that failed, of no file of the volume."""
    which, number, shift = trial
    call = replace(step, ordinal=max(1, step.ordinal + shift))
    traced = f"trace=openat,fsync,rename,unlink,{step.name}"
    with Tracer(receiver_pid(dev), folder / "fail", traced, _injection(call, f"error={error}")) as tracer:
        objects = [*_before(720, number, which), _raw(720, 5000 + number), _raw(720, 9000 + number)]
        statuses = _send(dev, account, *objects)
    calls = tracer.calls()
    if not any("INJECTED" in each.words and _is_on_disk(each) for each in calls):
        return False
    # Which of them it is depends on how fast this machine is: the room of a volume is asked for now and then.
    assert (statuses.count(0x0000), statuses.count(OUT_OF_RESOURCES)) == (which, 1), f"{error} at {step}: {statuses}"
    assert _send(dev, account, _raw(720, 95000 + number)) == [0x0000], "it goes on"
    assert files_without_row(dev) == [], f"{error} at {step} left something behind"
    if step.name == "fsync" and any("INJECTED" in each.words and ".part" in each.words for each in calls):
        _assert_never_tried_again(calls)
    return True


def _assert_never_tried_again(calls: list[Call]) -> None:
    """After its fsync failed, a file is only removed."""
    failed = next(number for number, call in enumerate(calls) if call.name == "fsync" and "INJECTED" in call.words)
    part = calls[failed].words.partition("<")[2].partition(">")[0]
    later = [call.name for call in calls[failed + 1 :] if part in call.words]
    assert set(later) == {"unlink"}


@pytest.mark.parametrize("which", [2, pytest.param(1, marks=pytest.mark.long)])
def test_a_connection_to_the_database_that_breaks_at_each_call(
    new_dev: Callable[..., Dev], tmp_path: Path, which: int
) -> None:
    # A send that fails on a connection that lives is a server that never answers: libpq waits for it.
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0", PACS_DATABASE_TIMEOUT_S="1").start(), Account()
    steps = [
        call
        for call in _recorded(dev, account, 730, tmp_path, which)
        if call.name in ("sendto", "recvfrom", "connect") and "<UNIX" in call.words
    ]
    refused = 0
    for number, step in enumerate(steps):
        objects = [*_before(730, number, which), _raw(730, 100 + number), _raw(730, 200 + number)]
        injection = _injection(step, "error=ECONNRESET")
        with Tracer(receiver_pid(dev), tmp_path / "fail", f"trace={step.name}", injection) as tracer:
            statuses = _send(dev, account, *objects)
        if not any("INJECTED" in call.words and "<UNIX" in call.words for call in tracer.calls()):
            continue  # a connection made anew shifts the numbers: it was the modality's that broke
        # psycopg prepares a statement at its fifth use: then another call of the thread is hit, before the store's.
        assert set(statuses) <= {OUT_OF_RESOURCES, 0x0000} and statuses[-1] == 0x0000, f"at {step}"
        refused += OUT_OF_RESOURCES in statuses
    assert refused >= 2
    assert_nothing_lost(dev, account)
