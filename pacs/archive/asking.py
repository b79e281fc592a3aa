"""What a retrieve leaves behind of what it asked for: when a study was last used, and the recall of what is far.

The use is written behind, many studies in one statement and none more than once an hour, by a thread of its own. A
kill loses the last seconds of it, which only lets a study move down a little sooner.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass

from pacs import clock
from pacs.errors import PacsError
from pacs.index import recalls, tiers
from pacs.index.database import Database
from pacs.index.tiers import USE_INTERVAL_S

log = logging.getLogger(__name__)

#: How long uses are gathered before they are written [s].
GATHERED_S = 10.0
_REMEMBERED_MAX = 100_000


@dataclass(frozen=True)
class Priors:
    """Which earlier studies of a patient come back with one that is recalled: how many, and how much older at most."""

    studies_max: int = 2
    days_max: float = 5 * 365


class Asking:
    """Notes what is retrieved. For use by many threads; close it."""

    def __init__(self, database: Database, priors: Priors | None = None, gathered_s: float = GATHERED_S) -> None:
        self._database, self._priors, self._gathered_s = database, priors or Priors(), gathered_s
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._written_s: dict[int, float] = {}
        self._timer: threading.Timer | None = None

    def note(self, study_keys: Collection[int], far: Collection[int]) -> None:
        """Note that studies are retrieved, of which `far` have an object on tier 3 only: these are recalled."""
        now_s = clock.monotonic_s()
        with self._lock:
            self._waiting |= {
                key for key in study_keys if now_s - self._written_s.get(key, -USE_INTERVAL_S) >= USE_INTERVAL_S
            }
            if self._waiting and self._timer is None:
                self._timer = threading.Timer(self._gathered_s, self.write)
                self._timer.daemon = True
                self._timer.start()
        if far:
            self._recall(far)

    def _recall(self, study_keys: Collection[int]) -> None:
        try:
            with self._database.transaction() as connection:
                recalls.request(connection, study_keys, "asked")
                priors = recalls.far_priors(connection, study_keys, self._priors.studies_max, self._priors.days_max)
                recalls.request(connection, priors, "prior")
        except PacsError as error:  # what was asked for is given all the same
            log.warning("a recall could not be asked for: %s", error)

    def write(self) -> None:
        """Write what was gathered. What cannot be written now is gathered on."""
        with self._lock:
            study_keys, self._waiting, self._timer = self._waiting, set(), None
        if not study_keys:
            return
        try:
            tiers.note_use(self._database, study_keys)
        except PacsError as error:
            log.warning("the use of studies could not be noted: %s", error)
            with self._lock:
                self._waiting |= study_keys
            return
        with self._lock:
            if len(self._written_s) > _REMEMBERED_MAX:
                self._written_s.clear()
            self._written_s |= dict.fromkeys(study_keys, clock.monotonic_s())

    def close(self) -> None:
        """Write what was gathered, and end."""
        with self._lock:
            timer = self._timer
        if timer is not None:
            timer.cancel()
        self.write()
