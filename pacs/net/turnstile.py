"""How many associations take an object in at once.

More threads than processors only hand Python's lock to and fro; the others' bytes wait in the kernel meanwhile. Nobody
waits for a peer that stalls or is slow, or for a disk: whoever has held a place for longer than the lease while others
wait has it no more, and goes on without one.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from pacs import clock

#: How long a place is kept while others wait [s]: longer than it takes to take in an object that is there already.
LEASE_S = 0.02


class Turnstile:
    """A number of places, given in the order of asking."""

    def __init__(self, places: int, lease_s: float = LEASE_S) -> None:
        self.lease_s = lease_s
        self._free = places
        self._lock = threading.Lock()
        self._inside: dict[object, float] = {}  # since when; the longest first
        self._waiting: deque[tuple[object, threading.Lock]] = deque()
        self._somebody_waits = threading.Event()
        threading.Thread(target=self._watch, name="turnstile", daemon=True).start()

    def enter(self) -> object:
        """Wait for a place. Returns what `leave` is to be given."""
        who = object()
        with self._lock:
            if self._free:
                self._free -= 1
                self._inside[who] = clock.monotonic_s()
                return who
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append((who, gate))
            if len(self._waiting) == 1:
                self._somebody_waits.set()
        gate.acquire()
        return who

    def leave(self, who: object) -> None:
        """Give the place back, if it is still one's own."""
        with self._lock:
            if self._inside.pop(who, None) is not None:
                self._let_in()

    def _watch(self) -> None:
        while True:
            self._somebody_waits.wait()
            time.sleep(self.lease_s / 2)
            with self._lock:
                self._write_off()
                if not self._waiting:
                    self._somebody_waits.clear()

    def _write_off(self) -> None:
        """Those who are inside for too long have had their place."""
        before_s = clock.monotonic_s() - self.lease_s
        while self._waiting and self._inside:
            longest = next(iter(self._inside))
            if self._inside[longest] > before_s:
                return
            del self._inside[longest]
            self._let_in()

    def _let_in(self) -> None:
        """Give a place that became free to the next."""
        if not self._waiting:
            self._free += 1
            return
        who, gate = self._waiting.popleft()
        self._inside[who] = clock.monotonic_s()
        gate.release()
