"""Work on many small files in as many processes as there are cores: Python computes on one core only.

Each process has its own connections and volumes. It ends with whoever started it, even if that is killed.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from pacs import log
from pacs.archive.volumes import OpenedWith, Volumes
from pacs.index.database import Database

#: More would only wait for the disk and for the database.
COUNT_MAX = 8
_CONNECTIONS_MAX = 2
_PR_SET_PDEATHSIG = 1
_T = TypeVar("_T")


@dataclass(frozen=True)
class Workplace:
    """What a process works with."""

    database: Database
    volumes: Volumes
    #: Set when whoever started it wants it to end.
    stop: Event


_workplace: Workplace | None = None
_open = ExitStack()


class Processes:
    """A pool of processes, each started when there is work for it. Close it."""

    def __init__(self, database: Database, volumes: Volumes, a_core: int = 1, count: int | None = None) -> None:
        """Work with the same database and volumes as these. So many a core, or a count."""
        context = multiprocessing.get_context("spawn")  # a fork would take threads' locks along
        self.count = count or min(a_core * (os.cpu_count() or 1), COUNT_MAX)
        self.stop = context.Event()
        words = (os.getpid(), database.conninfo, volumes.opened_with, self.stop)
        self._pool = ProcessPoolExecutor(self.count, context, initializer=_begin, initargs=words)

    def submit(self, work: Callable[..., _T], *words: Any) -> Future[_T]:
        """Have `work(workplace, *words)` done in one of them. The future raises BrokenProcessPool if one was ended."""
        return self._pool.submit(_do, work, words)

    def close(self) -> None:
        """End them, when they have done what they are at."""
        self._pool.shutdown(cancel_futures=True)


def _begin(parent: int, conninfo: str, opened_with: OpenedWith, stop: Event) -> None:
    global _workplace
    # It ends with whoever started it, even if that is killed: the next to come must find nobody at work.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's interrupt is for the one that started it
    log.set_up(to_journal="JOURNAL_STREAM" in os.environ)
    database = Database(conninfo, _CONNECTIONS_MAX)
    volumes = Volumes(database, *opened_with)
    volumes.refresh()
    _open.enter_context(volumes.watched())
    _workplace = Workplace(database, volumes, stop)


def _do(work: Callable[..., _T], words: tuple[Any, ...]) -> _T:
    assert _workplace is not None
    return work(_workplace, *words)
