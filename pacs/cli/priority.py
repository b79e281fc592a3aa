"""Work that gives way: this process is served by the disk and the processor only when nobody else wants them."""

from __future__ import annotations

import ctypes
import os
import platform

#: ioprio_set(2), which Python has not; elsewhere the process keeps its priority.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_WHO_PROCESS, _CLASS_IDLE = 1, 3 << 13


def give_way() -> None:
    """Let everybody else go first. To be called before threads are started, which take it over from this one.

    Not every disk's scheduler heeds it: a bandwidth limit is needed as well.
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(10, os.getpriority(os.PRIO_PROCESS, 0)))
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None, use_errno=True).syscall(number, _WHO_PROCESS, 0, _CLASS_IDLE)
