"""What the worker does for the database's backup: ships its log, makes recovery points, has backups made that are due.

Each repository is on a thread of its own, which may hang in a call on a dead share; the others go on. A backup reads
the cluster's files and the machine's keys. Where the worker may not (the appliance), it leaves a word in the runtime
folder, for which a unit waits that may; else it runs the backup as a process of its own.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial

from pacs import clock
from pacs.archive.room import reserve_bytes
from pacs.archive.volumes import Volumes
from pacs.backup import cluster_backup, running
from pacs.backup.log_shipping import Shipper, room_bytes, tidy
from pacs.backup.log_spool import LogSpool
from pacs.backup.points import PointMaker, Target
from pacs.backup.repositories import Repository, repositories
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.index.points import lacks_object
from pacs.index.runs import record_run
from pacs.index.server import server_place
from pacs.settings import Settings
from pacs.storage.keyring import Keyring
from pacs.storage.volume import read_identity

log = logging.getLogger(__name__)

#: How often the spool is looked at, points that wait, and whether a backup is due [s].
LOG_INTERVAL_S, POINTS_INTERVAL_S, BACKUPS_INTERVAL_S = 1.0, 2.0, 10.0
#: How often pgBackRest's configuration is written again [s]: a bucket may have got other keys.
WRITE_S = 60.0


class DatabaseBackup:
    """The database's part of the backup, in the worker."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        volumes: Volumes,
        may_ship: Callable[[str], bool] = lambda _volume_id: True,
    ) -> None:
        """may_ship: whether the lineage's mark on a repository, by its volume id, was looked at and fits."""
        self.may_ship = may_ship
        self.settings, self.database, self.volumes = settings, database, volumes
        self.spool = LogSpool(settings.data)
        self._threads: dict[str, threading.Thread] = {}
        self._shippers: dict[str, Shipper] = {}
        self._points: PointMaker | None = None
        self._written: list[Repository] | None = None
        self._write_again_s = 0.0
        self._told = ""
        self._backup: subprocess.Popen[bytes] | None = None

    def ship_log(self) -> None:
        """One look at the spool: what waits is on its way to each repository, what all have goes."""
        try:
            self._ship_log()
            self._told = ""
        except PacsError as error:
            if str(error) != self._told:  # once, not every second
                self._told = str(error)
                raise

    def _ship_log(self) -> None:
        known = repositories(self.settings.data)
        if known and (known != self._written or clock.monotonic_s() >= self._write_again_s):
            self.spool.want(True)
            cluster_backup.write_config(self.settings.data, known, Keyring.open(self.settings.data))
            self._written, self._write_again_s = known, clock.monotonic_s() + WRITE_S
        reserve = reserve_bytes(self.settings, self.database) if known else 0
        room = self.settings.backup_log_bytes_max or (room_bytes(self.spool, reserve) if known else 0)
        for name in tidy(self.settings.data, [each.name for each in known], room):
            record_run(self.database, "log gap", clock.now(), False, {"repository": name})
        for each in (each for each in known if self.may_ship(each.volume_id)):
            thread = self._threads.get(each.name)
            if thread is None or not thread.is_alive():
                shipper = self._shippers.setdefault(each.name, Shipper(self.settings.data, each.name))
                thread = threading.Thread(target=_ship, args=(shipper,), name=f"log {each.name}", daemon=True)
                self._threads[each.name] = thread
                thread.start()

    def make_points(self) -> None:
        """Name a place in the log if it is time, and write the points that have come to count."""
        known = repositories(self.settings.data)
        if not known:
            return
        if self._points is None:
            appliance_id = read_identity(self.settings.data).appliance_id
            self._points = PointMaker(
                self.database, self.spool, Keyring.open(self.settings.data), appliance_id,
                self.settings.recovery_point_s,
            )  # fmt: skip
        targets = [
            Target(
                each.name,
                self.volumes.by_id[each.volume_id],
                partial(lacks_object, self.database, each.volume_id),
            )
            for each in known
            if each.volume_id in self.volumes.by_id and self.may_ship(each.volume_id)
        ]
        for name, point in self._points.run(targets):
            log.info("recovery point", extra={"repository": name, "point": point.name})

    def have_backups_made(self) -> None:
        """See whether a backup is due, and have it made."""
        if self._backup is not None:
            if self._backup.poll() is None:
                return
            self._backup = None
        if not running.due(self.settings.data):
            return
        if os.access(server_place(self.settings.conninfo).data_directory / "PG_VERSION", os.R_OK):
            words = [sys.executable, "-m", "pacs.cli.main", "--data", str(self.settings.data), "backup", "run", "--due"]
            self._backup = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        else:
            (self.settings.runtime_folder / running.WANTED_FILE).touch()

    def close(self) -> None:
        """End a backup that runs. It is made again."""
        if self._backup is not None and self._backup.poll() is None:
            self._backup.terminate()
            self._backup.wait()


def _ship(shipper: Shipper) -> None:
    try:
        shipper.run()
    except PacsError as error:
        log.error("the log does not go to repository %s: %s", shipper.name, error)
    except Exception:  # a fault of ours ends this turn, not the worker
        log.exception("shipping the log failed")
