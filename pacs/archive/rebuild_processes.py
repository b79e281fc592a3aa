"""Who reads files for a rebuild: as many processes as there are cores, or this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from pacs.archive.processes import Processes, Workplace
from pacs.archive.rebuild import Reading
from pacs.archive.rebuild_files import Unit, UnitDone, read_unit
from pacs.archive.volumes import Volumes
from pacs.errors import RebuildError
from pacs.index.database import Database


class InThisProcess(Reading):
    """Reads units when they are waited for: where there are few files."""

    def __init__(self, database: Database, volumes: Volumes, trust_names: bool) -> None:
        self._words = (database, volumes, trust_names)

    def submit(self, unit: Unit) -> Callable[[], UnitDone]:
        """Read it later."""
        database, volumes, trust_names = self._words
        return lambda: read_unit(database, volumes.get(unit.volume_id), unit, trust_names)


class _InProcesses(Reading):
    def __init__(self, processes: Processes, trust_names: bool) -> None:
        self._processes, self._trust_names = processes, trust_names

    def submit(self, unit: Unit) -> Callable[[], UnitDone]:
        future = self._processes.submit(_read, unit, self._trust_names)

        def wait() -> UnitDone:
            try:
                return future.result()
            except BrokenProcessPool as error:
                raise RebuildError(
                    "A process that reads files was ended. Run `pacs index rebuild` again: it goes on where it was."
                ) from error

        return wait


@contextmanager
def reading(processes: int, database: Database, volumes: Volumes, trust_names: bool) -> Iterator[Reading]:
    """Readers in so many processes, in the block; 0: in this one."""
    if processes == 0:
        yield InThisProcess(database, volumes, trust_names)
        return
    pool = Processes(database, volumes, count=processes)
    try:
        yield _InProcesses(pool, trust_names)
    finally:
        pool.close()


def _read(at: Workplace, unit: Unit, trust_names: bool) -> UnitDone:
    return read_unit(at.database, at.volumes.get(unit.volume_id), unit, trust_names)
