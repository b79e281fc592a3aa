"""Shipping to all repositories and the standby at once: one that is slow or away holds none of the others up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from pacs import clock
from pacs.archive.volumes import Volumes
from pacs.backup.key_changes import is_sealed_anew
from pacs.backup.keys import Keyring, master_key
from pacs.backup.repositories import Repository, repositories
from pacs.backup.repository_changes import RepositoryChanges
from pacs.backup.shipping import Shipper, Target
from pacs.backup.standby_volumes import Standby, register_volumes, standby_of
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.index.locks import AlreadyRunning
from pacs.index.runs import record_run

log = logging.getLogger(__name__)


class Shipping:
    """Ships to every repository of an instance, and to its standby. Close it."""

    def __init__(
        self,
        database: Database,
        volumes: Volumes,
        data: Path,
        stop: threading.Event,
        may_ship: Callable[[str], bool] = lambda _volume_id: True,
    ) -> None:
        """may_ship: whether the lineage's mark on a repository, by its volume id, was looked at and fits."""
        self.may_ship = may_ship
        self.database, self.volumes, self.data, self.stop = database, volumes, data, stop
        self._changes = RepositoryChanges(database, data, volumes)
        self._threads: dict[str, threading.Thread] = {}
        #: Volume id → the sheet that its keys were found to be sealed by.
        self._sealed_by: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._has_keys = False

    def turn(self) -> None:
        """Begin to ship to each target to which nothing is under way."""
        if not self._has_keys:  # on the first boot: a sheet can be printed before there is a repository
            Keyring.open(self.data)
            master_key(self.data)
            self._has_keys = True
        found = repositories(self.data)
        if found:
            self._changes.register()
        standby = standby_of(self.data)
        if standby is not None:
            register_volumes(self.database, standby)
        targets: list[Repository | Standby] = [*found, *([standby] if standby is not None else [])]
        for target in targets:
            key = target.volume_ids[0]
            running = self._threads.get(key)
            # Of a standby one disk may be away, and the other takes what comes.
            here = [each for each in target.volume_ids if each in self.volumes.by_id] or list(target.volume_ids)
            if all(map(self.may_ship, here)) and (running is None or not running.is_alive()):
                self._threads[key] = threading.Thread(target=self._ship, args=(target,), name="ship", daemon=True)
                self._threads[key].start()

    def close(self) -> None:
        """Wait for what is under way; `stop` is set by now."""
        for thread in self._threads.values():
            thread.join()

    def _ship(self, target: Repository | Standby) -> None:
        shipper = Shipper(self.database, self.volumes, self.stop)
        started = clock.now()
        try:
            if isinstance(target, Repository):
                self._look_at_keys(target)
            done = shipper.run(target)
            if done.did_anything:
                record_run(self.database, "ship", started, not done.error, {**asdict(done), "to": target.name})
            self._tell(target, done.error)
        except AlreadyRunning:
            pass
        except PacsError as error:
            self._tell(target, str(error))
        except Exception:  # a fault of ours ends this turn, not the worker
            log.exception("shipping to %s failed", target.name)
        finally:
            shipper.close()

    def _look_at_keys(self, repository: Repository) -> None:
        """See to it that the sheet that is valid now opens it: it may have been away when a new one was made."""
        key_id = master_key(self.data).key_id
        volume = self.volumes.by_id.get(repository.volume_id)
        if volume is not None and self._sealed_by.get(repository.volume_id) != key_id:
            if is_sealed_anew(self.data, volume):
                log.warning("the keys in %s were sealed anew, by recovery sheet %s", repository.name, key_id)
            self._sealed_by[repository.volume_id] = key_id

    def _tell(self, target: Target, error: str) -> None:
        if error != self._told.get(target.name, ""):  # once an outage
            if error:
                log.error("shipping to %s: %s", target.name, error)
            else:
                log.warning("shipping to %s goes on", target.name)
            self._told[target.name] = error
