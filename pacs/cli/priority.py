"""Work that gives way: this process is served by the disk and the processor only when nobody else wants them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

#: ioprio_set(2), which Python has not; elsewhere the process keeps its priority.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_WHO_PROCESS, _CLASS_NONE, _CLASS_IDLE = 1, 0, 3 << 13
_NICE = 10


@contextmanager
def giving_way() -> Iterator[None]:
    """Let everybody else go first while the block runs. Threads that are started in it do as well.

    Not every disk's scheduler heeds it: a bandwidth limit is needed as well.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, before))
    _set_io_class(_CLASS_IDLE)
    try:
        yield
    finally:
        _set_io_class(_CLASS_NONE)
        with contextlib.suppress(PermissionError):  # only root may come back; a command ends here anyhow
            os.setpriority(os.PRIO_PROCESS, 0, before)


def _set_io_class(io_class: int) -> None:
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None, use_errno=True).syscall(number, _WHO_PROCESS, 0, io_class)
