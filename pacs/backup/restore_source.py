"""What a restore is made from: a repository opened by its recovery sheet, and the state that is chosen in it.

Nothing is written, here or there. A sheet that is not the repository's is refused here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.backup import points
from pacs.backup.keys import Keyring, MasterKey, sealed_in, unseal
from pacs.backup.mark import Begun
from pacs.backup.points import Point
from pacs.backup.repositories import ROLE, Repository, place_of
from pacs.errors import DataTooNew, NotFound
from pacs.index.database import known_migrations
from pacs.storage.lineage import read_mark
from pacs.storage.sealed import SealedVolume


@dataclass(frozen=True)
class Source:
    """An opened repository. Close its volume."""

    repository: Repository
    volume: SealedVolume
    keyring: Keyring

    def points(self) -> list[Point]:
        """The recovery points that count, oldest first."""
        return points.points(self.volume, self.keyring)

    def written_at(self) -> datetime | None:
        """When its archive last wrote here: a point, or the mark that a living one renews every quarter of an hour.

        None: nothing says so.
        """
        newest, mark = points.newest_point(self.volume, self.keyring), read_mark(self.volume)
        found = [newest.at] if newest else []
        with contextlib.suppress(ValueError):
            found += [datetime.fromisoformat(mark.at)] if mark else []
        return max((each if each.tzinfo else each.replace(tzinfo=UTC) for each in found), default=None)


@dataclass(frozen=True)
class Choice:
    """Up to where is restored: to a point, to a time, or (neither) to the end of the log."""

    restored_to: datetime
    point: Point | None = None
    time: datetime | None = None

    def begun(self, repository: Repository) -> Begun:
        """The mark of such a restore."""
        return Begun(
            described(repository), self.point.name if self.point else "", self.restored_to.isoformat(),
            to_the_end=self.point is None and self.time is None,
        )  # fmt: skip


def open_source(repository: Repository, master: MasterKey) -> Source:
    """Open a repository by its recovery sheet. Raise WrongKey before anything is touched, VolumeMissing, NotFound."""
    opened = place_of(repository).open(ROLE)
    try:
        keyring = unseal(sealed_in(opened), master)
    except BaseException:
        opened.close()
        raise
    return _source(repository, SealedVolume(opened, keyring), keyring)


def reopen(repository: Repository, keyring: Keyring) -> Source:
    """Open the repository of a restore that was begun: its keys are here already."""
    return _source(repository, SealedVolume(place_of(repository).open(ROLE), keyring), keyring)


def _source(repository: Repository, volume: SealedVolume, keyring: Keyring) -> Source:
    return Source(replace(repository, volume_id=volume.volume_id), volume, keyring)


def choose(source: Source, point: str | None, time: datetime | None, to_the_end: bool) -> Choice:
    """The newest recovery point, or what is asked for. Raise NotFound, or DataTooNew."""
    if time is not None:
        return Choice(time, time=time)
    if to_the_end:
        return Choice(clock.now())
    if point is not None:
        chosen = points.point_named(source.volume, source.keyring, point)
    else:
        newest = points.newest_point(source.volume, source.keyring)
        if newest is None:
            raise NotFound(
                f"The repository at {source.repository.place} has no recovery point. Its appliance made none yet; "
                "--time or --to-the-end restore what is in it."
            )
        chosen = newest
    if chosen.schema > max(known_migrations()):
        raise DataTooNew(
            f"Recovery point {chosen.name} has schema {chosen.schema} of version {chosen.version}, newer than this "
            "one's. Nothing was touched. Boot that version's image, or a newer one."
        )
    return Choice(chosen.at, point=chosen)


def described(repository: Repository) -> dict[str, Any]:
    """A repository as the mark has it."""
    return {**asdict(repository), "options": dict(repository.options), "windows": list(repository.windows),
            "credentials": str(repository.credentials)}  # fmt: skip


def repository_of(values: Mapping[str, Any]) -> Repository:
    """The repository of such values."""
    return Repository(
        **{**values, "windows": tuple(values["windows"]), "credentials": Path(values["credentials"])}
    )  # fmt: skip
