"""The worker: what goes on behind the receivers. It may be killed at any moment and started again."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict

from pacs import clock
from pacs.archive.move import Mover
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.index.runs import record_run
from pacs.settings import Settings
from pacs.storage.files import Volume
from pacs.storage.journal import Journal

log = logging.getLogger(__name__)


class Worker:
    """Copies the journal to every volume, and moves settled studies down when tier 1 is full."""

    def __init__(self, settings: Settings, database: Database, journal: Journal, by_tier: dict[int, Volume]) -> None:
        self.settings, self.database, self.journal, self.by_tier = settings, database, journal, by_tier

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. What fails is logged, and tried again at the next turn."""
        while not stop.is_set():
            for task in (self.copy_journal, self.move_down):
                try:
                    task()
                except PacsError as error:
                    log.error("%s: %s", task.__name__.replace("_", " "), error)
            stop.wait(self.settings.tier_interval_s)

    def copy_journal(self) -> None:
        """Bring each volume's copy of the journal up to date."""
        for volume in self.by_tier.values():
            volume.require_present()
            self.journal.copy_to(volume.root)

    def move_down(self) -> None:
        """One look at tier 1."""
        if 2 not in self.by_tier:
            return
        started = clock.now()
        mover = Mover(self.database, self.by_tier[1], self.by_tier[2], self.settings.settle_s)
        done = mover.run(self.settings.tier1_high_percent, self.settings.tier1_low_percent)
        if done.studies or done.removed or done.failed:
            record_run(self.database, "tier", started, done.failed == 0, asdict(done))
