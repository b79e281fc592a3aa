"""A process that works on an instance without end, to be killed again and again: a kill costs no start of Python.

For each line on its standard input it forks a child that works, and prints the child's process id when that begins.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn


class Forked:
    """A module of tests/faults that calls `serve`, as that process. What its children log is in `log`."""

    def __init__(self, module: str, data: Path) -> None:
        self.log = data.parent / "worker.log"
        with self.log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"tests.faults.{module}", str(data)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def begin(self) -> int:
        """Begin to work; the process id of who does."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def serve(work: Callable[[Path], object]) -> None:
    """Fork a child that works for each line; wait until it was killed."""
    for _line in sys.stdin:
        child = os.fork()
        if child == 0:
            _work(work)
        os.waitpid(child, 0)


def say_begun() -> None:
    """Say that the work begins."""
    os.write(1, f"{os.getpid()}\n".encode())


def _work(work: Callable[[Path], object]) -> NoReturn:
    try:
        work(Path(sys.argv[1]))
    except BaseException:
        traceback.print_exc()
    os._exit(1)  # it was to work until it is killed
