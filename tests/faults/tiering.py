"""A worker that moves, recalls and drains an instance without end, to be killed.

For each line on its standard input it forks a child that works, and prints the child's process id when that begins: a
kill costs no start of Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from pacs import log
from pacs.cli.instance import open_instance
from pacs.jobs import worker


def work(data: Path) -> None:
    """Be the instance's worker until killed; recalls are looked at as often as moves."""
    with open_instance(data) as instance:
        worker.RECALL_INTERVAL_S = instance.settings.tier_interval_s
        working = worker.Worker(instance.settings, instance.database, instance.journal, instance.volumes)
        os.write(1, f"{os.getpid()}\n".encode())
        working.run(threading.Event())


class Keeper:
    """That process. What its workers log is in `log`."""

    def __init__(self, data: Path) -> None:
        self.log = data.parent / "worker.log"
        with self.log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.tiering", str(data)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def __enter__(self) -> Keeper:
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


def main() -> None:
    """Fork a child that works for each line; wait until it was killed."""
    log.set_up(to_journal=False, verbose=False)
    for _line in sys.stdin:
        child = os.fork()
        if child == 0:
            work(Path(sys.argv[1]))
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
