"""Shipping: every object is copied to each repository, and to the standby, as it arrives, the oldest first.

    no row in `copy` on the repository → read, sealed, put in batches → read back and opened, its digest compared → row

An object has one path in a repository, its digest's; at the standby it has that of the copy it is read from. So what a
kill left there without a row is found when the object is shipped again: it counts if it is whole, and else it is put
anew. A repository that is away, full or read-only ends a turn, and the next one goes on: nobody waits for it, and
nothing is kept for it but the objects themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from pacs import clock
from pacs.archive.batches import Item, Source
from pacs.archive.transfer import Outcome, Stopped, Transfer
from pacs.archive.volumes import Volumes
from pacs.errors import DigestMismatch, NotFound, PacsError, PathTaken
from pacs.index import movement
from pacs.index import shipping as rows
from pacs.index.database import Database, Row
from pacs.index.locks import only_one
from pacs.model.record import study_key
from pacs.model.schedule import Bucket, is_open
from pacs.storage.files import RESERVED_BYTES
from pacs.storage.kinds import Volume
from pacs.storage.names import SEALED_SUFFIX, object_path, repository_path

log = logging.getLogger(__name__)

#: How many objects are looked up at once.
_PAGE_OBJECTS = 2048
#: How many objects are looked for at once in a repository that may have them.
_LOOKS_AT_ONCE = 8
#: How many objects a lag is counted up to.
LAG_OBJECTS_MAX = 10_000


class Target(Protocol):
    """Where is shipped to: a backup repository, or the standby."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    @property
    def volume_ids(self) -> tuple[str, ...]:
        """Its volumes: an object on one of them is there. How far it is stands with the first."""
        ...

    @property
    def is_repository(self) -> bool:
        """Whether an object's path there is its digest's; else it is as on the archive's own volumes."""
        ...

    @property
    def windows(self) -> tuple[str, ...]:
        """When it is written to; empty: always."""
        ...

    @property
    def bandwidth_bytes_per_s(self) -> int | None:
        """At most so much is sent; None: no limit."""
        ...


@dataclass(frozen=True)
class Lag:
    """How far a target is behind: objects that it does not have, and the age of the oldest of them [s]."""

    objects: int
    oldest_s: float | None
    #: False: there are more than were counted.
    is_counted: bool
    last_error: str = ""
    #: How long it has been away [s]; None: it is here.
    absent_s: float | None = None


def lag_of(database: Database, *volume_ids: str) -> Lag:
    """How far a target with these volumes is behind."""
    with database.transaction() as connection:
        objects, oldest_at = rows.behind(connection, volume_ids, LAG_OBJECTS_MAX + 1)
        state = rows.state(connection, volume_ids[0])
    now = clock.now()
    return Lag(
        min(objects, LAG_OBJECTS_MAX),
        None if oldest_at is None else max(0.0, (now - oldest_at).total_seconds()),
        objects <= LAG_OBJECTS_MAX,
        state["last_error"] if state else "",
        (now - state["absent_since"]).total_seconds() if state and state["absent_since"] else None,
    )


@dataclass
class Shipped:
    """What a turn did."""

    objects: int = 0
    #: Those that were there already, and were read.
    found: int = 0
    size_bytes: int = 0
    failed: int = 0
    #: Why it ended before its time; empty if all was shipped.
    error: str = ""

    @property
    def did_anything(self) -> bool:
        """Whether anything came to the repository, or failed to."""
        return bool(self.objects or self.found or self.failed)


class Shipper:
    """Ships to one target. For use by one thread; close it."""

    def __init__(self, database: Database, volumes: Volumes, stop: threading.Event | None = None) -> None:
        self.database, self.volumes = database, volumes
        self._transfer = Transfer(database, volumes, stop)
        self._bucket = Bucket(None, clock.monotonic_s())
        self._was_stopped, self._found = False, 0

    def close(self) -> None:
        """End its threads."""
        self._transfer.close()

    def run(self, target: Target) -> Shipped:
        """Ship what the target does not have, within its windows. Raise AlreadyRunning; DatabaseUnavailable.

        What else goes wrong is told in what is returned, and in `shipping`.
        """
        if not is_open(target.windows, clock.now().astimezone()):
            return Shipped()
        volume_id = target.volume_ids[0]
        turn = rows.begin_turn(self.database, volume_id)
        # Nearly always nothing is to be done; the lock would cost a connection.
        if not rows.unshipped(self.database, target.volume_ids, turn.position, 1):
            rows.end_turn(self.database, target.volume_ids, turn.seen, turn.is_sweep, "")
            return Shipped()
        with only_one(self.database, "ship", volume_id):
            return self._run(target)

    def _run(self, target: Target) -> Shipped:
        done = Shipped()
        turn = rows.begin_turn(self.database, target.volume_ids[0])
        self._was_stopped, self._found, outcome = False, 0, Outcome()
        try:
            outcome = self._ship(target, turn)
        except Stopped:
            self._was_stopped = True
        except PacsError as error:
            done.error, self._was_stopped = str(error), True
        done.objects, done.size_bytes, done.failed = len(outcome.copied), outcome.size_bytes, len(outcome.failed)
        done.found = self._found
        if outcome.failed and not done.error:
            done.error = f"{done.failed} objects were not shipped; one of them: {next(iter(outcome.failed.values()))}"
        has_swept = turn.is_sweep and not (self._was_stopped or outcome.failed)
        rows.end_turn(self.database, target.volume_ids, turn.seen, has_swept, done.error)
        return done

    def _ship(self, target: Target, turn: rows.Turn) -> Outcome:
        volumes = self._writable(target)
        if self._bucket.bytes_per_s != target.bandwidth_bytes_per_s:
            self._bucket = Bucket(target.bandwidth_bytes_per_s, clock.monotonic_s())
        items = self._items(target, volumes, turn)
        outcome = self._transfer.copy(items, lambda size_bytes: largest_with_room(volumes, size_bytes), self._bucket)
        for key, error in outcome.failed.items():
            # A damaged file without a row: the next turn puts it anew.
            if isinstance(error, PathTaken) and target.is_repository:
                self._clear(volumes[0], key)
        return outcome

    def _writable(self, target: Target) -> list[Volume]:
        """The target's volumes that are here. Raise VolumeMissing if none is, VolumeFailed if one takes nothing."""
        here = [self.volumes.by_id[each] for each in target.volume_ids if each in self.volumes.by_id]
        found = here or [self.volumes.get(target.volume_ids[0])]
        for each in found:
            each.require_writable()
        return found

    def _items(self, target: Target, volumes: Sequence[Volume], turn: rows.Turn) -> Iterator[Item]:
        """What the repository does not have, the oldest first, as long as its windows are open."""
        position = turn.position
        while True:
            page = rows.unshipped(self.database, target.volume_ids, position, _PAGE_OBJECTS)
            make = _sealed_item if target.is_repository else plain_item
            items = [make(list(copies)) for _key, copies in groupby(page, key=lambda row: int(row["object_key"]))]
            if not items:
                return
            position = items[-1].object_key
            for volume in volumes if turn.may_have else ():
                items = self._without_found(volume, items)
            yield from items
            if not is_open(target.windows, clock.now().astimezone()):
                self._was_stopped = True
                return

    def _without_found(self, volume: Volume, items: Sequence[Item]) -> list[Item]:
        """Give a row to each object that is in a repository, whole, without one; return the others."""
        with ThreadPoolExecutor(_LOOKS_AT_ONCE, "look") as threads:
            is_there = list(threads.map(lambda item: _is_whole_at(volume, item), items))
        found = [(item.object_key, item.path) for item, is_one in zip(items, is_there, strict=True) if is_one]
        with self.database.transaction() as connection:
            self._found += len(movement.add_copies(connection, volume.volume_id, found))
        self._transfer.pause(0)
        return [item for item, is_one in zip(items, is_there, strict=True) if not is_one]

    def _clear(self, volume: Volume, object_key: int) -> None:
        with self.database.transaction() as connection:
            sha256 = rows.digest_of(connection, object_key)
        if sha256 is None:
            return
        try:
            volume.remove(repository_path(sha256))
        except PacsError as error:
            log.warning("a damaged file in a repository stays: %s", error)


def _is_whole_at(volume: Volume, item: Item) -> bool:
    """Whether a repository has an object at its path, as it was stored. Raise what its volume does."""
    try:
        return volume.digest_on_disk(item.path) == item.sha256
    except (NotFound, DigestMismatch):
        return False


def largest_with_room(volumes: Sequence[Volume], size_bytes: int) -> Volume:
    """Of a target's volumes the largest that has room, the first of equals: whoever asks chooses the same, so that an
    object that two ship at once has one copy there."""
    if len(volumes) == 1:
        return volumes[0]
    rooms = {each.volume_id: each.room() for each in volumes}

    def rank(volume: Volume) -> tuple[bool, float]:
        room = rooms[volume.volume_id]
        has_room = room.free_bytes is None or room.free_bytes > size_bytes + RESERVED_BYTES
        return has_room, float("inf") if room.size_bytes is None else room.size_bytes

    return max(volumes, key=rank)


def _sealed_item(copies: Sequence[Row]) -> Item:
    sha256 = bytes(copies[0]["sha256"])
    return Item(copies[0]["object_key"], sha256, copies[0]["size_bytes"], _sources(copies), repository_path(sha256))


def plain_item(copies: Sequence[Row]) -> Item:
    """An object with the path of the copy that it is read from; one that only a repository has gets a new one."""
    first, path = copies[0], str(copies[0]["path"])
    if path.endswith(SEALED_SUFFIX):
        key = study_key(first["study_instance_uid"])
        path = object_path(first["tenant_id"], first["arrived_at"], key, bytes(first["sha256"]))
    return Item(first["object_key"], bytes(first["sha256"]), first["size_bytes"], _sources(copies), path)


def _sources(copies: Sequence[Row]) -> tuple[Source, ...]:
    return tuple(Source(row["copy_key"], row["volume_id"], row["path"]) for row in copies)
