"""Room kept for the database and its log, on the volume of the state.

PostgreSQL that cannot write its log ends at once (PANIC), and nobody can ask the archive for anything. So new objects
are refused (0xA700, HTTP 507) before it comes to that: as soon as less than the reserve is free, and until a tenth more
than the reserve is, so that it does not go back and forth. Queries, retrieval and what a person decides go on.

Where a tier lies on the same file system, the reserve is none of its room (LocalVolume.kept_bytes): an object that is
half in, and one that is moved or recalled to there, stop short of it, and the marks of its rules come before it.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from pacs import clock
from pacs.errors import VolumeFull
from pacs.index.database import Database
from pacs.index.growth import wal_size_bytes_max
from pacs.model.reserve import clear_bytes, default_reserve_bytes
from pacs.settings import Settings
from pacs.storage import durable

log = logging.getLogger(__name__)

#: Room for the journal where there is no database beside it.
JOURNAL_BYTES = 64 << 20
#: How long a reading of the free room counts [s]. At 500 MB/s, a tenth of the least reserve may come in meanwhile.
READING_S = 0.25


class StateRoom:
    """Whether there is room on the state's volume for the database, for many threads to ask at each object."""

    def __init__(self, root: Path, reserve_bytes: int) -> None:
        """root is the state's folder."""
        self.root = root
        self.reserve_bytes = reserve_bytes
        self.clear_bytes = clear_bytes(reserve_bytes)
        self._is_short = False
        self._read_again_s = 0.0
        self._lock = threading.Lock()

    def require(self) -> None:
        """Raise VolumeFull while new objects are not to be taken. No system call but every READING_S."""
        if clock.monotonic_s() >= self._read_again_s:
            self._look()
        if self._is_short:
            # The same words each time: refusals are counted by them.
            raise VolumeFull(
                "The disk of the database is nearly full: no new objects are taken, so that it can go on. "
                "Enlarge the state's disk (docs/operate/disk-full.md)."
            )

    def _look(self) -> None:
        if not self._lock.acquire(blocking=False):  # another thread reads; the reading before counts until then
            return
        try:
            free = free_bytes(self.root)
            if free < self.reserve_bytes and not self._is_short:
                log.error(
                    "the state's volume has less than %d MB free: new objects are refused until it has %d MB",
                    self.reserve_bytes // 1_000_000, self.clear_bytes // 1_000_000,
                )  # fmt: skip
                self._is_short = True
            elif free >= self.clear_bytes and self._is_short:
                log.warning("there is room on the state's volume again: new objects are taken")
                self._is_short = False
            self._read_again_s = clock.monotonic_s() + READING_S
        finally:
            self._lock.release()


def reserve_bytes(settings: Settings, database: Database) -> int:
    """What is kept free on the state's volume: its setting, or reckoned from what the database's log may take [bytes].

    A database that is elsewhere needs none of it: then only the journal does.
    """
    if settings.state_reserve_bytes is not None:
        return settings.state_reserve_bytes
    if settings.database and not (settings.data / "postgresql").is_dir():
        return min(JOURNAL_BYTES, size_bytes(settings.data) // 4)
    return default_reserve_bytes(wal_size_bytes_max(database), size_bytes(settings.data))


def free_bytes(root: Path) -> int:
    """What the service can still write on the file system of root. Raise VolumeFailed if it does not answer."""
    status = _status(root)
    return status.f_bavail * status.f_frsize


def size_bytes(root: Path) -> int:
    """The size of the file system of root [bytes]. Raise VolumeFailed if it does not answer."""
    status = _status(root)
    return status.f_blocks * status.f_frsize


def _status(root: Path) -> os.statvfs_result:
    try:
        return os.statvfs(root)
    except OSError as error:
        raise durable.as_volume_error(error, root) from error
