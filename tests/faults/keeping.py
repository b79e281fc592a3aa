"""A process that scrubs, repairs and compares an instance without end, to be killed.

For each line on its standard input it forks a child that works, and prints the child's process id when that begins: a
kill costs no start of Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from pacs.archive.reconcile import reconcile
from pacs.archive.repair import Repair
from pacs.archive.scrub import Scrub
from pacs.cli.instance import open_instance
from pacs.index.locks import AlreadyRunning


def work(data: Path) -> None:
    """Keep the instance until killed."""
    with open_instance(data) as instance:
        os.write(1, f"{os.getpid()}\n".encode())
        while True:
            try:
                Scrub(instance.database, instance.volumes.by_id, timedelta(days=90)).run(everything=True)
                Repair(instance.database, instance.volumes.by_id).run(at_once=True)
                reconcile(instance.database, instance.volumes.all(), orphan_age_s=0)
            except AlreadyRunning:  # the server has not noticed yet that the one before was killed
                time.sleep(0.01)


class Keeper:
    """That process."""

    def __init__(self, data: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.keeping", str(data)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
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
    for _line in sys.stdin:
        child = os.fork()
        if child == 0:
            work(Path(sys.argv[1]))
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
