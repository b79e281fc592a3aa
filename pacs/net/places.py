"""Places for associations that all receivers of an instance share.

A place is a byte of one file, locked by the receiver whose association has it. The kernel gives back what a receiver
held when that ends, however it ends; nothing is written.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

#: Each name's places are so many bytes from the next's: no limit is higher.
_BYTES_A_NAME = 1 << 20


@dataclass(frozen=True)
class Place:
    """A place that was taken: its byte."""

    at: int


class Places:
    """The places of one instance, as one receiver sees them."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never closed but with the process: closing any file number of it would give back every place.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._lock = threading.Lock()
        self._own: set[int] = set()  # a lock keeps out other processes only

    def take(self, name: str, count: int) -> Place | None:
        """One of the `count` places under a name, or None if all are taken."""
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:5]) * _BYTES_A_NAME
        with self._lock:
            for at in range(start, start + min(count, _BYTES_A_NAME)):
                if at not in self._own and self._try(at):
                    self._own.add(at)
                    return Place(at)
        return None

    def give_back(self, place: Place) -> None:
        """Leave a place to others."""
        with self._lock:
            self._own.remove(place.at)
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, place.at)

    def _try(self, at: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
        except (BlockingIOError, PermissionError):
            return False
        return True
