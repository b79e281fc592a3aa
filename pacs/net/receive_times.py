"""How long receiving an object takes, from its request to its answer: counted by each receiver, read for the metrics.

    RUN/measured/receiver-<n>.json    the counts of receiver n since it started, every few seconds
    RUN/measured/receiver-<n>.lock    held by it: which n is free

Counting is a few additions, and the file is written by a thread of its own. What cannot be counted is no matter.
"""

from __future__ import annotations

import fcntl
import json
import logging
import threading
from pathlib import Path
from typing import IO

from pacs.errors import PacsError
from pacs.model.histogram import Histogram

log = logging.getLogger(__name__)

#: Bounds of the classes [s]: an object of a CT takes milliseconds, one of a gigabyte seconds.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OUTCOMES = ("stored", "refused")
_EVERY_S = 5.0
_RECEIVERS_MAX = 64


class ReceiveTimes:
    """The counts of one receiver."""

    def __init__(self, runtime_folder: Path) -> None:
        self.folder = runtime_folder / "measured"
        self._times = {outcome: Histogram(BOUNDS_S) for outcome in OUTCOMES}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._held: IO[bytes] | None = None
        self._path: Path | None = None
        self._thread: threading.Thread | None = None
        self._is_new = True

    def note(self, seconds: float, is_stored: bool) -> None:
        """Count an object that was answered."""
        with self._lock:
            self._times["stored" if is_stored else "refused"].observe(seconds)
            self._is_new = True

    def start(self) -> None:
        """Begin to write the counts down."""
        try:
            self._take_number()
        except OSError as error:
            log.warning("how long receiving takes is not counted: %s", error.strerror, extra={"path": self.folder})
            return
        self._thread = threading.Thread(target=self._write_often, name="receive times", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write them a last time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._held is not None:
            self._held.close()

    def _take_number(self) -> None:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        for number in range(1, _RECEIVERS_MAX + 1):
            held = open(self.folder / f"receiver-{number}.lock", "wb")  # noqa: SIM115 (held until the receiver ends)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.close()
                continue
            self._held, self._path = held, self.folder / f"receiver-{number}.json"
            return

    def _write_often(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(_EVERY_S)
            if self._is_new:
                self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        with self._lock:
            self._is_new = False
            found = {name: {"counts": each.counts, "total": each.total} for name, each in self._times.items()}
            text = json.dumps(found)
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_text(text, "ascii")
            temporary.replace(self._path)  # nothing of it need outlive a restart
        except OSError as error:
            log.debug("how long receiving takes was not written down: %s", error.strerror)


def receive_times(runtime_folder: Path) -> dict[str, dict[str, Histogram]]:
    """Receiver's number → outcome → how long it took. Empty if none has counted."""
    found: dict[str, dict[str, Histogram]] = {}
    for path in sorted((runtime_folder / "measured").glob("receiver-*.json")):
        try:
            known = json.loads(path.read_text("ascii"))
            found[path.stem.rpartition("-")[2]] = {
                outcome: Histogram(BOUNDS_S, each["counts"], each["total"]) for outcome, each in known.items()
            }
        except (OSError, ValueError, KeyError, TypeError, PacsError):  # of another version: it writes again soon
            continue
    return found
