"""A bandwidth limit: what reads or writes in the background tells of each piece, and waits."""

from __future__ import annotations

import threading
import time

from pacs import clock

#: Waits shorter than this are saved up [s]: a thread's wake-up costs more than they are worth.
_WAIT_S_MIN = 0.02


class Pace:
    """Lets so many bytes a second pass, of all threads together. What was not used is not saved up."""

    def __init__(self, rate_bytes_s: float | None) -> None:
        """None: no limit."""
        self.rate_bytes_s = rate_bytes_s
        self._lock = threading.Lock()
        self._free_at_s = 0.0

    def spend(self, size_bytes: int) -> None:
        """Note that so much was read or written, and wait until more may be."""
        if not self.rate_bytes_s:
            return
        with self._lock:
            now_s = clock.monotonic_s()
            self._free_at_s = max(self._free_at_s, now_s) + size_bytes / self.rate_bytes_s
            wait_s = self._free_at_s - now_s
        if wait_s >= _WAIT_S_MIN:
            time.sleep(wait_s)
