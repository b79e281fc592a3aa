"""Reading copies past all caches and comparing their digests, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pacs.archive.processes import Processes, Workplace
from pacs.archive.volumes import Volumes
from pacs.errors import DigestMismatch, NotFound, PacsError, VolumeFailed
from pacs.index.database import Database
from pacs.storage.kinds import Volume

#: Files that are read at once: enough that one is hashed while another is fetched, and no queue before the disk.
_THREADS = {"local": 2}
#: What is far away is waited for.
_THREADS_FAR = 4
#: One waits for the disk, past all caches, while the other computes.
_PROCESSES_A_CORE = 2
#: How many copies a thread, a process takes at once: of large ones few, so that all end together.
_OF_A_THREAD = 20
_OF_A_PROCESS = 100
_T = TypeVar("_T")


@dataclass(frozen=True)
class Expected:
    """A copy that is to be read."""

    number: int
    path: str
    sha256: bytes


@dataclass(frozen=True)
class Fault:
    """A copy that is not as it should be: bad or missing, and why."""

    number: int
    state: str
    error: PacsError | None


#: Waits until what was begun is read, and tells what is not as it should be. Raises VolumeMissing.
Outcome = Callable[[], list[Fault]]


class Readers(Protocol):
    """Whoever reads copies."""

    def begin(self, volume: Volume, copies: Sequence[Expected]) -> Outcome:
        """Begin to read them all, in about their order."""
        ...


class _Threads:
    def __init__(self, threads: ThreadPoolExecutor, spend: Callable[[int], None]) -> None:
        self._threads, self._spend = threads, spend

    def begin(self, volume: Volume, copies: Sequence[Expected]) -> Outcome:
        found = self._threads.map(lambda some: list(_faults(volume, some, self._spend)), _strides(copies, _OF_A_THREAD))
        return lambda: [fault for some in found for fault in some]


class _InProcesses:
    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def begin(self, volume: Volume, copies: Sequence[Expected]) -> Outcome:
        with _unless_ended():
            reading = [
                self._processes.submit(_faults_there, volume.volume_id, some)
                for some in _strides(copies, _OF_A_PROCESS)
            ]

        def outcome() -> list[Fault]:
            with _unless_ended():
                return [fault for each in reading for fault in each.result()]

        return outcome


@contextmanager
def _unless_ended() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise PacsError("A process that reads was ended. Scrub again: it goes on where it was.") from None


@contextmanager
def in_threads(volume: Volume, spend: Callable[[int], None]) -> Iterator[Readers]:
    """Readers in this process. `spend` is told of what was read [bytes], and may wait."""
    count = _THREADS.get(volume.promise.kind, _THREADS_FAR)
    with ThreadPoolExecutor(count, thread_name_prefix="scrub") as threads:
        yield _Threads(threads, spend)


@contextmanager
def in_processes(database: Database, volumes: Volumes) -> Iterator[Readers]:
    """Readers in processes."""
    processes = Processes(database, volumes, _PROCESSES_A_CORE)
    try:
        yield _InProcesses(processes)
    finally:
        processes.close()


def _strides(copies: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (copies[start : start + size] for start in range(0, len(copies), size))


def _faults_there(at: Workplace, volume_id: str, copies: Sequence[Expected]) -> list[Fault]:
    return list(_faults(at.volumes.get(volume_id), copies))


def _faults(volume: Volume, copies: Sequence[Expected], spend: Callable[[int], None] | None = None) -> Iterator[Fault]:
    for copy in copies:
        try:
            if volume.digest_on_disk(copy.path, spend) != copy.sha256:
                yield Fault(copy.number, "bad", None)
        except NotFound as error:
            yield Fault(copy.number, "missing", error)
        except (VolumeFailed, DigestMismatch) as error:
            yield Fault(copy.number, "bad", error)
