"""Moving some studies together from volumes to others: what a rule and a drain both do.

    copy → fsync → read back past caches, compare the digest → commit the new copy and take the old one out of service
         → ten minutes later remove its file

A kill at any moment leaves at least one verified copy, and at most one row for each copy and volume. Files without a
row are found by reconciliation. Of two workers that come to one study, one leaves it to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from pacs import clock
from pacs.archive.batches import Item, Source
from pacs.archive.transfer import Stopped, Stopping, Transfer
from pacs.archive.volumes import Volumes
from pacs.errors import VolumeFailed
from pacs.index import movement as rows
from pacs.index.database import Connection, Database, Row
from pacs.index.movement import StudyLocks
from pacs.model.schedule import Bucket
from pacs.storage.kinds import Volume

#: A study of which an object could not be moved is left alone for so long [s]: it must not hold up the others.
_FAILED_REST_S = 3600
_VOLUME_REST_S = 300


@dataclass
class Pass:
    """What one look at the tiers did."""

    studies: int = 0
    objects: int = 0
    size_bytes: int = 0
    failed: int = 0
    removed: int = 0
    #: What ended a rule or a drain before its time.
    errors: list[str] = field(default_factory=list)

    @property
    def is_nothing(self) -> bool:
        """Whether it did nothing and nothing went wrong."""
        return not (self.studies or self.failed or self.removed or self.errors)

    def add(self, other: Pass) -> None:
        """Add what another did."""
        self.studies += other.studies
        self.objects += other.objects
        self.size_bytes += other.size_bytes
        self.failed += other.failed
        self.removed += other.removed
        self.errors += other.errors


@dataclass(frozen=True)
class Group:
    """Studies that are moved together off the sources (volume ids)."""

    studies: Sequence[Row]
    sources: Sequence[str]
    #: What has a good copy on one of these is where it belongs already.
    targets: Sequence[str]
    #: Whether the old copies stay in service.
    keep: bool = False

    @property
    def size_bytes(self) -> int:
        """Of all that is on the sources."""
        return sum(study["size_bytes"] for study in self.studies)


class GroupMover:
    """Moves groups of studies. For use by one thread; close it."""

    def __init__(self, database: Database, volumes: Volumes, stop: Stopping | None = None) -> None:
        self.database, self.volumes = database, volumes
        self.transfer = Transfer(database, volumes, stop)
        self._locks = StudyLocks(database)
        #: Study key → until when it is left alone [s, clock.monotonic_s].
        self.rest_until_s: dict[int, float] = {}

    def close(self) -> None:
        """Let go of all."""
        self._locks.close()
        self.transfer.close()

    def resting(self) -> list[int]:
        """The studies that are left alone now."""
        now_s = clock.monotonic_s()
        self.rest_until_s = {key: until for key, until in self.rest_until_s.items() if until > now_s}
        return list(self.rest_until_s)

    def move(self, group: Group, choose: Callable[[int], Volume], done: Pass, bucket: Bucket | None = None) -> None:
        """Move what of a group nobody else works on, where `choose` says for a size [bytes]. Raise what ends it."""
        with self._locks.holding([study["study_key"] for study in group.studies]) as mine:
            if not mine:
                return
            with self.database.transaction() as connection:
                rows.revive_copies(connection, mine, group.targets)
                copies = rows.copies_to_move(connection, mine, group.sources, group.targets)
            study_of = {copy["object_key"]: copy["study_key"] for copy in copies}
            here = [volume.volume_id for volume in self.volumes.own()]

            def when_noted(connection: Connection, object_keys: Sequence[int], _size_bytes: int) -> None:
                if not group.keep:
                    rows.leave(connection, object_keys, group.sources, here)

            try:
                there = [copy for copy in copies if copy["is_there"]]
                if there and not group.keep:
                    with self.database.transaction() as connection:
                        rows.leave(connection, [copy["object_key"] for copy in there], group.sources, here)
                    done.objects += len(there)
                    done.size_bytes += sum(copy["size_bytes"] for copy in there)
                items = [_item(copy) for copy in copies if not copy["is_there"]]
                outcome = self.transfer.copy(items, choose, bucket, when_noted)
            except Stopped:
                return
            except VolumeFailed:  # of one of both: other studies may have other volumes
                self._rest(mine, _VOLUME_REST_S)
                raise
            done.objects += len(outcome.copied)
            done.size_bytes += outcome.size_bytes
            done.failed += len(outcome.failed)
            failed = {study_of[key] for key in outcome.failed}
            self._rest(failed, _FAILED_REST_S)
            done.studies += len(set(study_of.values()) - failed)

    def _rest(self, study_keys: Collection[int], seconds: float) -> None:
        self.rest_until_s |= dict.fromkeys(study_keys, clock.monotonic_s() + seconds)


def _item(copy: Row) -> Item:
    source = Source(copy["copy_key"], copy["volume_id"], copy["path"])
    return Item(copy["object_key"], bytes(copy["sha256"]), copy["size_bytes"], (source,))
