"""How the scrub stands: since when all was read, what is due and overdue, and when all will have been read again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pacs import clock
from pacs.archive.volumes import Volumes
from pacs.index import fixity as rows
from pacs.index.database import Database
from pacs.index.locks import is_running
from pacs.index.runs import newest_run
from pacs.index.volumes import KnownVolume
from pacs.model.scrub_plan import Folder, finished_at, is_due, is_overdue, share_bytes


@dataclass(frozen=True)
class VolumeFixity:
    """One volume's copies, as they were last counted. `since`: every one of them was read then or later."""

    name: str
    location: str
    copies: int
    size_bytes: int
    #: Read within the period.
    verified_bytes: int
    #: To be read in the last quarter of their period.
    due_bytes: int
    overdue_copies: int
    overdue_bytes: int
    since: datetime | None
    #: How soon every copy there is read again [days], and whether that was said of this volume.
    period_days: float
    is_own_period: bool


@dataclass(frozen=True)
class Fixity:
    """All volumes together."""

    volumes: tuple[VolumeFixity, ...]
    is_running: bool
    #: How much a day has to do so that nothing is late [bytes].
    share_bytes: int
    #: When all that is here will have been read once more.
    ends_at: datetime
    last_run: dict[str, object] | None

    @property
    def size_bytes(self) -> int:
        """Of all copies."""
        return sum(volume.size_bytes for volume in self.volumes)

    @property
    def verified_bytes(self) -> int:
        """Of those that were read within the period."""
        return sum(volume.verified_bytes for volume in self.volumes)

    @property
    def overdue_copies(self) -> int:
        """How many were not."""
        return sum(volume.overdue_copies for volume in self.volumes)

    @property
    def since(self) -> datetime | None:
        """The last full pass: every copy was read then or later. None if there is no copy."""
        return min((volume.since for volume in self.volumes if volume.since), default=None)


def fixity(database: Database, volumes: Volumes, period: timedelta) -> Fixity:
    """How the scrub stands now."""
    now = clock.now()
    by_volume: dict[str, list[Folder]] = {row.volume_id: [] for row in volumes.rows}
    folders = rows.folders(database, list(by_volume))
    for folder in folders:
        by_volume[folder.volume_id].append(folder)
    return Fixity(
        tuple(_of_volume(row, by_volume[row.volume_id], now, period) for row in volumes.rows),
        is_running(database, "scrub"),
        share_bytes(folders, now, period),
        finished_at(folders, now, period),
        newest_run(database, "scrub"),
    )  # fmt: skip


def _of_volume(row: KnownVolume, folders: list[Folder], now: datetime, period: timedelta) -> VolumeFixity:
    overdue = [folder for folder in folders if is_overdue(folder, now, period)]
    due = [folder for folder in folders if is_due(folder, now, period)]
    size_bytes, overdue_bytes = _sum(folders), _sum(overdue)
    return VolumeFixity(
        row.name,
        row.location,
        copies=sum(folder.copies for folder in folders),
        size_bytes=size_bytes,
        verified_bytes=size_bytes - overdue_bytes,
        due_bytes=_sum(due),
        overdue_copies=sum(folder.copies for folder in overdue),
        overdue_bytes=overdue_bytes,
        since=min((folder.verified_at for folder in folders), default=None),
        period_days=row.scrub_days or period / timedelta(days=1),
        is_own_period=row.scrub_days is not None,
    )


def _sum(folders: list[Folder]) -> int:
    return sum(folder.size_bytes for folder in folders)
