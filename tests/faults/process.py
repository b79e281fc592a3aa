"""The processes of a `pacs dev`: which is which, what they hold, and how they end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.fix_instance import Dev

T = TypeVar("T")


def service_pid(dev: Dev, name: str) -> int | None:
    """The process id of a service of the instance (`receiver`, `web`, `worker`); None if it is not there."""
    for pid in dev.pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if name.encode() in words and b"run" in words:
            return pid
    return None


def receiver_pid(dev: Dev) -> int:
    """The receiver's process id; waits for one that is just being started."""
    return wait_for(lambda: service_pid(dev, "receiver"), "there is no receiver")


def postmaster_pid(dev: Dev) -> int:
    """The process id of the instance's PostgreSQL."""
    return int((dev.data / "postgresql" / "main" / "postmaster.pid").read_text().split()[0])


def backend_pids(dev: Dev) -> list[int]:
    """The server processes of PostgreSQL that serve a connection."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) != postmaster_pid(dev):
                continue
            if b"pacs pacs" in (status.parent / "cmdline").read_bytes():  # "postgres: pacs pacs [local] idle"
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; wait until SIGKILL has ended the process, and SIGSTOP has stopped each of its threads."""
    os.kill(pid, number)
    if number == signal.SIGKILL:
        wait_for(lambda: not _is_alive(pid), f"process {pid} does not end")
    if number == signal.SIGSTOP:
        wait_for(lambda: _thread_states(pid) == {"T"}, f"process {pid} does not stop")


def _thread_states(pid: int) -> set[str]:
    states = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            states.add((task / "stat").read_text().rpartition(")")[2].split()[0])
        except OSError:  # it has ended
            continue
    return states


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def memory_peak_bytes(pid: int) -> int:
    """The most memory that a process has had since it began, or since `forget_memory_peak` (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM: the process has ended")


def forget_memory_peak(pid: int) -> None:
    """Begin to look for the peak anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_for(look: Callable[[], T | None], otherwise: str, timeout_s: float = 60) -> T:
    """What `look` gives as soon as it gives something true. Fails after timeout_s."""
    ends = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < ends, otherwise
        time.sleep(0.02)
