"""How two twins stand, from either side: what the standby lacks, of the log and of the objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pacs import clock
from pacs.backup.shipping import Lag, lag_of
from pacs.backup.standby_bundle import came_at
from pacs.backup.standby_files import StandbyFiles
from pacs.backup.standby_volumes import Standby
from pacs.index import standby as rows
from pacs.index.database import Database
from pacs.index.standby import Receiving, Stream
from pacs.index.volumes import STANDBY_TIER, list_volumes
from pacs.settings import Settings


@dataclass(frozen=True)
class AtArchive:
    """How the standby stands, as the archive sees it. log: None if no log is kept for it."""

    objects: Lag
    log: Stream | None

    @property
    def is_level(self) -> bool:
        """Whether the standby has all that there is."""
        return not self.objects.objects and self.log is not None and self.log.is_streaming and not self.log.behind_bytes


@dataclass(frozen=True)
class AtStandby:
    """How a standby stands, as it sees itself."""

    step: str
    log: Receiving | None
    #: Objects that its database names and its disks do not have, counted up to a bound; None: it cannot be told.
    objects: Lag | None
    #: Age of the settings and keys that came last [s].
    bundle_s: float | None


def at_archive(settings: Settings, database: Database, standby: Standby) -> AtArchive:
    """Look from the archive. Raise DatabaseUnavailable."""
    return AtArchive(lag_of(database, *standby.volume_ids), rows.stream(settings.conninfo))


def at_standby(settings: Settings) -> AtStandby:
    """Look from the standby. Raise DatabaseUnavailable."""
    step = StandbyFiles(settings.data).following() or ""
    if step != "follows":
        return AtStandby(step, None, None, None)
    database = Database(settings.conninfo)
    try:
        ours = [each for each in list_volumes(database) if each.tier == STANDBY_TIER]
        objects = lag_of(database, *(each.volume_id for each in ours)) if ours else None
        roots = [Path(unquote(urlsplit(each.location).path)) for each in ours]
    finally:
        database.close()
    came = [at for root in roots if (at := came_at(root)) is not None]
    age_s = max(0.0, clock.now().timestamp() - max(came)) if came else None
    return AtStandby(step, rows.receiving(settings.conninfo), objects, age_s)
