"""The worker: what goes on behind the receivers. It may be killed at any moment and started again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict

from pacs import clock
from pacs.archive.drain import drain
from pacs.archive.lineage import BEAT_S, Lineage
from pacs.archive.metadata import Metadata
from pacs.archive.metadata_writer import MetadataWriter
from pacs.archive.move import Mover
from pacs.archive.move_group import Pass
from pacs.archive.outgoing import Transcoding
from pacs.archive.recall import Behind, Recaller
from pacs.archive.receipts import ReceiptWriter
from pacs.archive.repair import Repair
from pacs.archive.retrieve import Retrieve
from pacs.archive.reverted import IN_FLIGHT_S, reconcile_reverted
from pacs.archive.tiering import rules_in_force
from pacs.archive.volumes import Volumes
from pacs.backup.shipping_turns import Shipping
from pacs.backup.standby_bundle import Bundles
from pacs.backup.standby_volumes import first_here, standby_of
from pacs.errors import PacsError
from pacs.index import growth, recalls, restores, tiers
from pacs.index.database import Database
from pacs.index.runs import record_run
from pacs.jobs import auditing
from pacs.jobs.database_backup import BACKUPS_INTERVAL_S, LOG_INTERVAL_S, POINTS_INTERVAL_S, DatabaseBackup
from pacs.settings import Settings
from pacs.storage.journal import Journal
from pacs.storage.receipts import Receipts

log = logging.getLogger(__name__)

#: How often arrivals are counted [s].
COUNT_S = 900.0
#: How often it is looked whether a study is to be recalled [s].
RECALL_INTERVAL_S = 1.0
#: How often it is looked whether something is to be shipped [s].
SHIP_INTERVAL_S = 5.0
#: How often it is looked whether a study has settled [s].
METADATA_INTERVAL_S = 10.0
#: How often it is looked whether settings and keys changed, for the standby [s].
BUNDLE_INTERVAL_S = 10.0
#: How long recalls that are over are shown [days].
_RECALLS_KEPT_DAYS = 30


class Worker:
    """What goes on behind the receivers, each of it on a thread of its own, as any may take hours: study by study it
    recalls, repairs, moves; and every minute it writes down what a rebuild of the index would need."""

    def __init__(self, settings: Settings, database: Database, journal: Journal, volumes: Volumes) -> None:
        self.settings, self.database, self.journal, self.volumes = settings, database, journal, volumes
        self._count_again_s = 0.0
        self.stop = threading.Event()
        self.receipts = Receipts(settings.data)
        self.receipt_writer = ReceiptWriter(database, self.receipts)
        self._mover = Mover(database, volumes, settings.settle_s, settings.recall_keep_s, self.stop)
        self.lineage = Lineage(settings.data, database, volumes)
        self.backup = DatabaseBackup(settings, database, volumes, self.lineage.may_ship)
        self._shipping = Shipping(database, volumes, settings.data, self.stop, self.lineage.may_ship)
        self._bundles = Bundles(settings.data)
        self._auditing = auditing.Auditing(settings, database, volumes, self.lineage)
        self._metadata = MetadataWriter(
            # Not through what notes that studies are used, and recalls them.
            Metadata(Retrieve(database, volumes), volumes, Transcoding(settings.transcode_size_bytes_max)),
            settings.settle_s, self.stop,
        )  # fmt: skip
        self._recaller = Recaller(database, volumes, settings.recall_tier, self.stop)
        self._behind = Behind(database, volumes, settings.tier1_low_percent, self.stop)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. What fails is logged, and tried again at the next turn."""
        every_s = self.settings.tier_interval_s
        turns: dict[str, tuple[float, tuple[Callable[[], None], ...]]] = {
            "lineage": (min(every_s, BEAT_S), (self.lineage.beat,)),
            "reverted": (min(every_s, BEAT_S), (self.reconcile_reverted,)),
            "recall": (RECALL_INTERVAL_S, (self.recall,)),
            "restore": (RECALL_INTERVAL_S, (self.bring_back,)),
            "journal": (every_s, (self.look_at_volumes, self.write_receipts, self.copy_journal, self.count_arrivals)),
            "arrivals": (min(every_s, auditing.ARRIVALS_INTERVAL_S), (self._auditing.write_arrivals,)),
            "audit": (min(every_s, auditing.INTERVAL_S), (self._auditing.keep_audit_log,)),
            "move": (every_s, (self.move,)),
            "repair": (every_s, (self.repair,)),
            "log": (LOG_INTERVAL_S, (self.ship_log,)),
            "points": (POINTS_INTERVAL_S, (self.make_points,)),
            "backups": (BACKUPS_INTERVAL_S, (self.have_backups_made,)),
            "metadata": (METADATA_INTERVAL_S, (self.write_metadata,)),
            "ship": (SHIP_INTERVAL_S, (self.ship,)),
            "standby": (BUNDLE_INTERVAL_S, (self.send_settings,)),
        }
        self._look_first()
        threads = [
            threading.Thread(target=self._repeat, args=(interval_s, *tasks), name=name, daemon=True)
            for name, (interval_s, tasks) in turns.items()
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        self.stop.set()
        for thread in threads:
            thread.join()
        self._mover.close()
        self._recaller.close()
        self._behind.close()
        self.backup.close()
        self._shipping.close()

    def _repeat(self, interval_s: float, *tasks: Callable[[], None]) -> None:
        while not self.stop.is_set():
            for task in tasks:
                if self.stop.is_set():
                    break
                try:
                    task()
                except PacsError as error:
                    log.error("%s: %s", task.__name__.replace("_", " "), error)
                except Exception:  # a fault of ours ends this turn, not the worker
                    log.exception("%s failed", task.__name__.replace("_", " "))
            self.stop.wait(interval_s)

    def _look_first(self) -> None:
        """Nothing is copied, moved or repaired before the lineage's marks were looked at once."""
        try:
            self.lineage.beat()
        except PacsError as error:
            log.error("the lineage cannot be looked at: %s", error)

    def reconcile_reverted(self) -> None:
        """After something went back in time: find again what the volumes hold beyond the index."""
        notice = self.lineage.files.reverted()
        if notice is None or notice.reconciled_at or self.lineage.files.fenced() is not None:
            return
        started, in_flight_s = clock.now(), min(IN_FLIGHT_S, self.settings.orphan_age_s)
        notice.result, notice.problems = reconcile_reverted(
            self.database, self.volumes, self.journal, self.receipts, in_flight_s, self.stop.wait
        )
        now = self.lineage.files.reverted()
        if self.stop.is_set() or now is None or now.findings != notice.findings:  # more was noticed: all of it again
            return
        self.lineage.settle(notice)
        record_run(self.database, "reverted", started, not notice.problems, notice.result)

    def look_at_volumes(self) -> None:
        """Which volumes are there now: queries say of what is on the others that it is offline."""
        self.volumes.refresh()
        tiers.note_absent(self.database, self.volumes.absent.keys())
        recalls.forget_old(self.database, _RECALLS_KEPT_DAYS)

    def write_receipts(self) -> None:
        """Write down what of the newest arrivals is not in their files."""
        self.receipt_writer.run()

    def copy_journal(self) -> None:
        """Bring each volume's copies of the journal and the receipts up to date."""
        if self.lineage.is_held:  # theirs may know more than ours
            return
        for volume in self.volumes.own():
            for kept in (self.journal, self.receipts):
                try:
                    kept.copy_to(volume)
                except PacsError as error:  # the others get theirs
                    log.error("no copy of %s: %s", kept.folder.name, error)

    def recall(self) -> None:
        """Bring back the studies that were asked for."""
        if not self.lineage.is_held:
            self._recaller.run()

    def bring_back(self) -> None:
        """Bring back what a restore left in the repository only."""
        if self.lineage.is_held:
            return
        if self._behind.run() and restores.finish_bulk(self.database):
            log.warning("all that was restored is back on this appliance's own volumes")

    def move(self) -> None:
        """One look at the tiers: what has left goes, what is drained moves, the rules are followed."""
        if self.lineage.is_held:
            return
        started, done = clock.now(), Pass()
        try:
            done.removed = self._mover.remove_left(self.settings.move_grace_s)
            for volume in self.volumes.draining():
                drain(self._mover, self.volumes, volume, done)
            self._mover.follow(rules_in_force(self.database, self.settings), done)
        except PacsError as error:
            done.errors.append(str(error))
            raise
        finally:
            if not done.is_nothing:
                succeeded = done.failed == 0 and not done.errors
                record_run(self.database, "tier", started, succeeded, asdict(done))

    def ship(self) -> None:
        """Have every repository and the standby given what it does not have yet, each on a thread of its own."""
        self._shipping.turn()

    def write_metadata(self) -> None:
        """Write the metadata of what has settled, for who asks over the web."""
        if not self.lineage.is_held:
            self._metadata.run()

    def send_settings(self) -> None:
        """Have the standby given settings, keys and journal, where they changed."""
        standby = standby_of(self.settings.data)
        volume = first_here(standby, self.volumes.by_id) if standby is not None else None
        if volume is not None and self.lineage.may_ship(volume.volume_id) and self._bundles.push(volume):
            log.info("settings, keys and journal went to the standby")

    def ship_log(self) -> None:
        """Have every repository given the database's log; not of a database that went back in time."""
        if self.lineage.may_back_up:
            self.backup.ship_log()

    def make_points(self) -> None:
        """Make the recovery points that are due."""
        if self.lineage.may_back_up:
            self.backup.make_points()

    def have_backups_made(self) -> None:
        """Have the backups of the database made that are due."""
        if self.lineage.may_back_up:
            self.backup.have_backups_made()

    def repair(self) -> None:
        """Make copies that are missing or bad anew, from others of their objects, a repository's last."""
        if self.lineage.is_held:
            return
        started, limit = clock.now(), self.settings.scrub_rate_mb_s
        work = Repair(self.database, self.volumes.by_id, limit * 1e6 or None)
        done = work.run(duration_s_max=self.settings.tier_interval_s)
        if done.did_anything:
            record_run(self.database, "repair", started, done.waiting == 0, asdict(done))

    def count_arrivals(self) -> None:
        """Count what arrived, for the forecast; now and then, as it is a look back at days."""
        now_s = clock.monotonic_s()
        if now_s >= self._count_again_s:
            growth.count_arrivals(self.database)
            self._count_again_s = now_s + COUNT_S
