"""The worker: what goes on behind the receivers. It may be killed at any moment and started again."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict

from pacs import clock
from pacs.archive.move import Mover
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError
from pacs.index import growth
from pacs.index.database import Database
from pacs.index.runs import record_run
from pacs.settings import Settings
from pacs.storage.journal import Journal

log = logging.getLogger(__name__)

#: How often arrivals are counted [s].
COUNT_S = 900.0


class Worker:
    """Copies the journal to every volume, and moves settled studies down when tier 1 is full."""

    def __init__(self, settings: Settings, database: Database, journal: Journal, volumes: Volumes) -> None:
        self.settings, self.database, self.journal, self.volumes = settings, database, journal, volumes
        self._count_again_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. What fails is logged, and tried again at the next turn."""
        while not stop.is_set():
            for task in (self.copy_journal, self.move_down, self.count_arrivals):
                try:
                    task()
                except PacsError as error:
                    log.error("%s: %s", task.__name__.replace("_", " "), error)
            stop.wait(self.settings.tier_interval_s)

    def copy_journal(self) -> None:
        """Bring each volume's copy of the journal up to date."""
        for volume in self.volumes.all():
            try:
                self.journal.copy_to(volume)
            except PacsError as error:  # the others get theirs
                log.error("no copy of the journal: %s", error)

    def move_down(self) -> None:
        """One look at the volumes of tier 1."""
        if not self.volumes.tier(2):
            return
        for source in self.volumes.tier(1):
            started = clock.now()
            mover = Mover(self.database, source, self.volumes.place(2, 0), self.settings.settle_s)
            done = mover.run(self.settings.tier1_high_percent, self.settings.tier1_low_percent)
            if done.studies or done.removed or done.failed:
                record_run(self.database, "tier", started, done.failed == 0, asdict(done))

    def count_arrivals(self) -> None:
        """Count what arrived, for the forecast; now and then, as it is a look back at days."""
        now_s = clock.monotonic_s()
        if now_s >= self._count_again_s:
            growth.count_arrivals(self.database)
            self._count_again_s = now_s + COUNT_S
