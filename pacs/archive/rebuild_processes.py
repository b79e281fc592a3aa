"""The processes that read files for a rebuild: as many as there are cores, each with its own connection and volumes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from pacs.archive.rebuild import Reading
from pacs.archive.rebuild_files import Unit, UnitDone, read_unit
from pacs.archive.volumes import Volumes
from pacs.errors import RebuildError
from pacs.index.database import Database

_PR_SET_PDEATHSIG = 1

_reader: tuple[Database, Volumes, bool] | None = None


class InThisProcess(Reading):
    """Reads units when they are waited for: where there are few files."""

    def __init__(self, database: Database, volumes: Volumes, trust_names: bool) -> None:
        self._words = (database, volumes, trust_names)

    def submit(self, unit: Unit) -> Callable[[], UnitDone]:
        """Read it later."""
        database, volumes, trust_names = self._words
        return lambda: read_unit(database, volumes.get(unit.volume_id), unit, trust_names)


class _InProcesses(Reading):
    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, unit: Unit) -> Callable[[], UnitDone]:
        future = self._pool.submit(_read, unit)

        def wait() -> UnitDone:
            try:
                return future.result()
            except BrokenProcessPool as error:
                raise RebuildError(
                    "A process that reads files was ended. Run `pacs index rebuild` again: it goes on where it was."
                ) from error

        return wait


@contextmanager
def reading(
    processes: int, conninfo: str, data: Path, database: Database, volumes: Volumes, trust_names: bool
) -> Iterator[Reading]:
    """Readers in so many processes, in the block; 0: in this one."""
    if processes == 0:
        yield InThisProcess(database, volumes, trust_names)
        return
    words = (os.getpid(), conninfo, data, trust_names)
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=words)
    try:
        yield _InProcesses(pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int, conninfo: str, data: Path, trust_names: bool) -> None:
    global _reader
    # It ends with whoever started it, even if that is killed: the next rebuild must find nobody at work.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    database = Database(conninfo, connections_max=2)
    volumes = Volumes(database, data)
    volumes.refresh()
    _reader = (database, volumes, trust_names)


def _read(unit: Unit) -> UnitDone:
    assert _reader is not None
    database, volumes, trust_names = _reader
    return read_unit(database, volumes.get(unit.volume_id), unit, trust_names)
