"""Shipping to all repositories at once: one that is slow or away holds none of the others up."""

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
from pacs.backup.shipping import Shipper
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.index.locks import AlreadyRunning
from pacs.index.runs import record_run

log = logging.getLogger(__name__)


class Shipping:
    """Ships to every repository of an instance. Close it."""

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
        """Begin to ship to each repository to which nothing is under way."""
        if not self._has_keys:  # on the first boot: a sheet can be printed before there is a repository
            Keyring.open(self.data)
            master_key(self.data)
            self._has_keys = True
        found = repositories(self.data)
        if found:
            self._changes.register()
        for repository in found:
            running = self._threads.get(repository.volume_id)
            if self.may_ship(repository.volume_id) and (running is None or not running.is_alive()):
                thread = threading.Thread(target=self._ship, args=(repository,), name="ship", daemon=True)
                self._threads[repository.volume_id] = thread
                thread.start()

    def close(self) -> None:
        """Wait for what is under way; `stop` is set by now."""
        for thread in self._threads.values():
            thread.join()

    def _ship(self, repository: Repository) -> None:
        shipper = Shipper(self.database, self.volumes, self.stop)
        started = clock.now()
        try:
            self._look_at_keys(repository)
            done = shipper.run(repository)
            if done.did_anything:
                record_run(self.database, "ship", started, not done.error, {**asdict(done), "to": repository.name})
            self._tell(repository, done.error)
        except AlreadyRunning:
            pass
        except PacsError as error:
            self._tell(repository, str(error))
        except Exception:  # a fault of ours ends this turn, not the worker
            log.exception("shipping to %s failed", repository.name)
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

    def _tell(self, repository: Repository, error: str) -> None:
        if error != self._told.get(repository.name, ""):  # once an outage
            if error:
                log.error("shipping to %s: %s", repository.name, error)
            else:
                log.warning("shipping to %s goes on", repository.name)
            self._told[repository.name] = error
