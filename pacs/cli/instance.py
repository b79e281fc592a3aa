"""An opened instance: settings, database, volumes, journal. What every command and service is composed of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pacs import settings as settings_table
from pacs.archive.rebuild_mark import require_no_rebuild
from pacs.archive.room import StateRoom, reserve_bytes
from pacs.archive.volumes import Volumes, open_volumes
from pacs.backup.mark import MARK
from pacs.backup.standby_files import require_no_standby
from pacs.errors import RestoreError
from pacs.index import database as index
from pacs.index.database import Database
from pacs.settings import Settings
from pacs.storage.journal import Journal
from pacs.storage.volume import read_identity

if TYPE_CHECKING:
    from pacs.archive.commit import Verifier
    from pacs.archive.retrieve import Retrieve
    from pacs.archive.store import Store


@dataclass(frozen=True)
class Instance:
    """An instance with its volumes open."""

    settings: Settings
    database: Database
    journal: Journal
    volumes: Volumes

    def store(self) -> Store:
        """The receive path: objects arrive on tier 1."""
        from pacs.archive.store import Store  # here, as it imports all of pydicom, and few commands need it

        room = StateRoom(self.settings.data, reserve_bytes(self.settings, self.database))
        made = Store(self.database, self.volumes, self.settings.object_size_bytes_max, room)
        if self.settings.standby_answer != "off":
            from pacs.backup.standby_answer import StandbyAnswer

            made.confirm = StandbyAnswer(self.settings, self.database, self.volumes)
        return made

    def retrieve(self) -> Retrieve:
        """The way back. What is retrieved counts as used, and what is far is recalled."""
        from pacs.archive.asking import Asking, Priors
        from pacs.archive.retrieve import Retrieve

        priors = Priors(self.settings.recall_priors_max, self.settings.recall_priors_days)
        return Retrieve(self.database, self.volumes, asking=Asking(self.database, priors))

    def verifier(self) -> Verifier:
        """What storage commitment is answered from."""
        from pacs.archive.commit import Verifier

        return Verifier(self.database, self.volumes)


@contextmanager
def open_database(
    settings: Settings, connections_max: int = 8, timeout_s: float | None = None, may_be_standby: bool = False
) -> Iterator[Database]:
    """The instance's database, its schema checked. timeout_s: how long a statement may take. may_be_standby: also one
    that follows another's, and can only be read."""
    read_identity(settings.data)  # data of a newer version are refused before anything is asked of them
    require_no_rebuild(settings.data)
    if not may_be_standby:
        require_no_standby(settings.data)
    database = Database(settings.conninfo, connections_max, timeout_s)
    try:
        index.require_current(database)
        yield database
    finally:
        database.close()


@contextmanager
def open_instance(
    data: Path, connections_max: int = 8, in_restore: bool = False, timeout_s: float | None = None
) -> Iterator[Instance]:
    """The instance in `data`, with its volumes. Raise an error of the tree if it is not as it should be.

    A volume that is missing is no such error: see Volumes.absent.
    """
    settings = settings_table.load(data)
    if not in_restore and (data / MARK).exists():
        raise RestoreError("A restore was begun here and did not finish. Run `pacs restore` again; nothing else first.")
    with open_database(settings, connections_max, timeout_s) as database:
        roots = {1: settings.tier1_root}
        if settings.tier2_root != settings.tier1_root:
            roots[2] = settings.tier2_root
        volumes = open_volumes(database, data, roots, in_restore, reserve_bytes(settings, database))
        yield Instance(settings, database, Journal(data), volumes)
