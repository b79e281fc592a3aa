"""Emptying a volume before it is taken out: all that is on it moves to the other volumes of its tier, else to the next.

What was moved stays moved, so it may be stopped and begun again at any moment. A study that is pinned stays on its
tier. One that is not settled is taken when it is: nothing new comes to a volume that is drained.
"""

from __future__ import annotations

from dataclasses import dataclass

from pacs.archive.move import Mover
from pacs.archive.move_group import Pass
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError, VolumeError, VolumeFull
from pacs.index import tiers
from pacs.index.database import Database, Row
from pacs.storage.kinds import Volume

_LAST_TIER = 3


@dataclass(frozen=True)
class Progress:
    """What is on a volume that is drained: in service; left already, its files going in ten minutes; and lost."""

    objects: int
    size_bytes: int
    leaving_objects: int
    lost_objects: int

    @classmethod
    def of(cls, row: Row | None) -> Progress:
        """What a row of tiers.on_volumes says; None: nothing is there."""
        if row is None:
            return cls(0, 0, 0, 0)
        return cls(row["objects"], row["size_bytes"], row["leaving_objects"], row["lost_objects"])

    @property
    def is_empty(self) -> bool:
        """Whether it can be retired: no object needs it."""
        return self.objects == 0 and self.leaving_objects == 0


def progress(database: Database, volume_id: str) -> Progress:
    """How far a volume is from being empty."""
    return Progress.of(tiers.on_volumes(database).get(volume_id))


def drain(mover: Mover, volumes: Volumes, volume: Volume, done: Pass) -> None:
    """Move off a volume what can be moved now; what keeps the rest there is told in done.errors."""
    tier = volumes.row(volume.volume_id).tier

    def choose(size_bytes: int, is_pinned: bool) -> Volume:
        return _choose(volumes, tier, size_bytes, is_pinned)

    try:
        mover.empty(volume, choose, done)
    except PacsError as error:
        name = volumes.row(volume.volume_id).name
        done.errors.append(f"volume {name}: {error}")


def _choose(volumes: Volumes, tier: int, size_bytes: int, is_pinned: bool) -> Volume:
    try:
        return volumes.place(tier, size_bytes)
    except (VolumeFull, VolumeError) as error:
        if is_pinned:
            raise type(error)(
                f"Pinned studies stay on tier {tier}: {error} Add a volume to it, or `pacs study unpin` them."
            ) from error
        if tier == _LAST_TIER:
            raise
        try:
            return volumes.place(tier + 1, size_bytes)
        except VolumeError:
            raise error from None
