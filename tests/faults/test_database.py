"""PostgreSQL killed, stopped, slow and gone: every C-STORE is answered, with success or with a status that makes the
sender try again; nothing acknowledged is lost; the receiver goes on by itself and is not started again."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.faults.aftermath import assert_nothing_lost
from tests.faults.process import backend_pids, kill, postmaster_pid, receiver_pid, wait_for
from tests.faults.sender import Account, Senders
from tests.faults.trace import Tracer
from tests.faults.wire import CT, EXPLICIT, Wire
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode

OUT_OF_RESOURCES = 0xA700


def _raw(seed: int, number: int = 1) -> RawObject:
    return RawObject.of(encode(ct_dataset(seed, number)))


def _store(wire: Wire, account: Account, raw: RawObject) -> int | None:
    account.sent[raw.sop_instance_uid] = raw
    status = wire.store_raw(raw)
    account.note(raw, status)
    return status


def _stores(dev: Dev, account: Account, seed: int) -> bool:
    """Whether a new association stores a new object."""
    try:
        with Wire(dev.dicom_port, timeout_s=20) as wire:
            wire.associate([(CT, EXPLICIT)])
            return _store(wire, account, _raw(seed, random.randrange(1 << 30))) == 0x0000
    except (OSError, AssertionError):
        return False


def _connect(dev: Dev) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs")


def _killed_under_load(dev: Dev, account: Account, seed: int, strike: Callable[[], None]) -> None:
    """Strike while three senders store, and see that they go on storing with the same receiver."""
    before = receiver_pid(dev)
    with Senders(dev.dicom_port, account, [seed, seed + 1, seed + 2]):
        wait_for(lambda: len(account.acknowledged) > 10, "nothing is stored")
        strike()
        stored = len(account.acknowledged)
        wait_for(lambda: len(account.acknowledged) > stored + 10, "storing does not go on by itself", 60)
    assert receiver_pid(dev) == before, "it was the receiver that was started again"
    wrong = [status for status in account.statuses if status not in (0x0000, OUT_OF_RESOURCES)]
    assert wrong == []


def test_a_backend_killed_under_load(new_dev: Callable[..., Dev]) -> None:
    """PostgreSQL then ends all connections, recovers from its log and goes on."""
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account()
    _killed_under_load(dev, account, 800, lambda: kill(random.Random(1).choice(backend_pids(dev))))
    assert_nothing_lost(dev, account)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="kill-9"),
        pytest.param(signal.SIGQUIT, id="immediate", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, id="fast", marks=pytest.mark.long),
    ],
)
def test_a_postmaster_killed_under_load(new_dev: Callable[..., Dev], number: signal.Signals) -> None:
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account()
    first = postmaster_pid(dev)
    _killed_under_load(dev, account, 810, lambda: kill(first, number))
    assert postmaster_pid(dev) != first
    assert_nothing_lost(dev, account)


def test_a_backend_killed_between_the_commit_and_its_answer(new_dev: Callable[..., Dev], tmp_path: Path) -> None:
    """The outcome is unknown to the receiver: it does not say that it stored, and does not take the bytes away."""
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account()
    # The log's write in the commit; its flush, by when another process has the bytes; the answer to what is committed.
    for step in ("pwrite64", "fdatasync", "sendto"):
        with Wire(dev.dicom_port) as wire:
            wire.associate([(CT, EXPLICIT)])
            known = set(backend_pids(dev))
            assert _store(wire, account, _raw(820)) == 0x0000
            (backend,) = set(backend_pids(dev)) - known
            raw = _raw(820, random.randrange(1 << 30))
            with Tracer(backend, tmp_path / "kill", f"trace={step}", f"inject={step}:signal=SIGKILL:when=1"):
                assert _store(wire, account, raw) == OUT_OF_RESOURCES
        wait_for(lambda: _stores(dev, account, 821), "the receiver does not go on")
        with _connect(dev) as connection:
            rows = connection.execute("SELECT FROM object WHERE sop_instance_uid = %s", (raw.sop_instance_uid,))
            assert len(rows.fetchall()) == (step != "pwrite64")
        assert _stores_again(dev, account, raw)
    assert_nothing_lost(dev, account)


def _stores_again(dev: Dev, account: Account, raw: RawObject) -> bool:
    with Wire(dev.dicom_port) as wire:
        wire.associate([(CT, EXPLICIT)])
        return _store(wire, account, raw) == 0x0000


@pytest.mark.long
def test_a_database_that_is_stopped_for_seconds(new_dev: Callable[..., Dev]) -> None:
    """SIGSTOP: nothing fails, it only takes so long."""
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account()
    with Wire(dev.dicom_port) as wire:
        wire.associate([(CT, EXPLICIT)])
        assert _store(wire, account, _raw(830)) == 0x0000
        stopped = [postmaster_pid(dev), *backend_pids(dev)]
        for pid in stopped:
            kill(pid, signal.SIGSTOP)
        threading.Timer(3, lambda: [kill(pid, signal.SIGCONT) for pid in stopped]).start()
        assert _store(wire, account, _raw(830, 2)) == 0x0000
    assert_nothing_lost(dev, account)


def test_a_database_that_hangs_is_answered_with_a700(new_dev: Callable[..., Dev]) -> None:
    """SIGSTOP for longer than database_timeout_s, as when its disk hangs: no statement_timeout helps there."""
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0", PACS_DATABASE_TIMEOUT_S="1").start(), Account()
    with Wire(dev.dicom_port) as wire:
        wire.associate([(CT, EXPLICIT)])
        assert _store(wire, account, _raw(840)) == 0x0000
        stopped = [postmaster_pid(dev), *backend_pids(dev)]
        for pid in stopped:
            kill(pid, signal.SIGSTOP)
        try:
            assert _store(wire, account, _raw(840, 2)) == OUT_OF_RESOURCES
            with Wire(dev.dicom_port) as other:
                assert other.associate([(CT, EXPLICIT)]) == {1}, "who asks meanwhile is let in"
                assert _store(other, account, _raw(840, 3)) == OUT_OF_RESOURCES
        finally:
            for pid in stopped:
                kill(pid, signal.SIGCONT)
        wait_for(lambda: _store(wire, account, _raw(840, 4)) == 0x0000, "the association does not go on")
    wait_for(lambda: _stores(dev, account, 841), "the receiver does not go on")
    assert_nothing_lost(dev, account)


def test_a_lock_that_is_held_is_answered_with_a700(new_dev: Callable[..., Dev]) -> None:
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0", PACS_DATABASE_TIMEOUT_S="1").start(), Account()
    with Wire(dev.dicom_port) as wire:
        wire.associate([(CT, EXPLICIT)])
        assert _store(wire, account, _raw(850)) == 0x0000
        with _connect(dev) as holder:
            holder.execute("LOCK TABLE object IN ACCESS EXCLUSIVE MODE")
            assert _store(wire, account, _raw(850, 2)) == OUT_OF_RESOURCES
        assert _store(wire, account, _raw(850, 3)) == 0x0000
    assert_nothing_lost(dev, account)


def test_a_database_that_is_gone_is_answered_with_a700_until_it_is_back(new_dev: Callable[..., Dev]) -> None:
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account()
    assert _stores(dev, account, 860)
    control = dev.data / "postgresql" / "main" / "global" / "pg_control"
    with Wire(dev.dicom_port) as wire:
        wire.associate([(CT, EXPLICIT)])
        control.rename(control.with_name("away"))  # it cannot start
        kill(postmaster_pid(dev))
        assert _store(wire, account, _raw(861)) == OUT_OF_RESOURCES
        with Wire(dev.dicom_port) as other:
            assert other.associate([(CT, EXPLICIT)]) == {1}
            assert _store(other, account, _raw(862)) == OUT_OF_RESOURCES
        # Long enough for the waits between tries to grow, if they did.
        time.sleep(5)
        control.with_name("away").rename(control)
        wait_for(lambda: _store(wire, account, _raw(863)) == 0x0000, "the association does not go on")
    wait_for(lambda: _stores(dev, account, 864), "the receiver does not go on")
    assert_nothing_lost(dev, account)
    assert "Müller" not in dev.log()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_database_killed_forty_times_under_load(new_dev: Callable[..., Dev]) -> None:
    dev, account, chance = new_dev(PACS_ORPHAN_AGE_S="0").start(), Account(), random.Random(5)
    before = receiver_pid(dev)
    with Senders(dev.dicom_port, account, [870, 871, 872, 873]):
        for _ in range(40):
            stored = len(account.acknowledged)
            wait_for(lambda stored=stored: len(account.acknowledged) > stored + 10, "storing does not go on", 90)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 1))
            backends = wait_for(lambda: backend_pids(dev), "there are no backends")
            kill(*chance.choice([(postmaster_pid(dev), signal.SIGKILL), (postmaster_pid(dev), signal.SIGQUIT),
                                 (chance.choice(backends), signal.SIGKILL)]))  # fmt: skip
    assert receiver_pid(dev) == before
    assert {status for status in account.statuses if status} <= {OUT_OF_RESOURCES}
    print(f"PostgreSQL killed 40 times: {len(account.acknowledged)} acknowledged of {len(account.sent)} sent")
    assert_nothing_lost(dev, account)
