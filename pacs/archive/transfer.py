"""Objects copied to another volume, in batches that share the cost of syncing and committing.

    read → put under a name of its own, synced → read back past caches, its digest compared → rows committed

A file whose row was surely not made is removed at once. Where the outcome is unknown (the database went away in the
middle) the files stay, and reconciliation decides. Nothing is ever taken from where it was read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pacs import clock
from pacs.archive.volumes import Volumes
from pacs.errors import DatabaseUnavailable, DigestMismatch, PacsError, VolumeError
from pacs.index import movement as rows
from pacs.index.database import Connection, Database
from pacs.index.retrieve import withdraw_copy
from pacs.model.schedule import Bucket
from pacs.storage.kinds import ToPut, Volume
from pacs.storage.names import fresh_path

log = logging.getLogger(__name__)

#: What is synced and committed together, at most: objects, and bytes of them.
BATCH_OBJECTS = 512
BATCH_SIZE_BYTES = 64 << 20
#: Files that are read back at once: while one waits for the disk another is hashed.
_VERIFIED_AT_ONCE = 4
_LOGGED_MAX = 5


@dataclass(frozen=True)
class Source:
    """A copy of an object: where it is."""

    copy_key: int
    volume_id: str
    path: str


@dataclass(frozen=True)
class Item:
    """An object to be copied, and the copies that it can be read from, the best first."""

    object_key: int
    sha256: bytes
    size_bytes: int
    sources: tuple[Source, ...]


@dataclass
class Outcome:
    """What became of objects."""

    copied: set[int] = field(default_factory=set)
    size_bytes: int = 0
    #: Object key → why it was not copied.
    failed: dict[int, PacsError] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Add what became of others."""
        self.copied |= other.copied
        self.size_bytes += other.size_bytes
        self.failed |= other.failed


#: Called in the transaction in which objects' copies are noted, with the keys of those that count.
WhenNoted = Callable[[Connection, Sequence[int], int], None]


class Stopped(Exception):
    """Whoever asked for it wants it to end."""


class Transfer:
    """Copies objects to volumes of an instance. For use by one thread; close it."""

    def __init__(self, database: Database, volumes: Volumes, stop: threading.Event | None = None) -> None:
        self.database, self.volumes = database, volumes
        self.stop = stop or threading.Event()
        self._readers = ThreadPoolExecutor(_VERIFIED_AT_ONCE, thread_name_prefix="verify")
        #: Which copy each object of the batch was read from.
        self._read_from: dict[int, Source] = {}

    def close(self) -> None:
        """End its threads."""
        self._readers.shutdown()

    def copy(
        self,
        items: Iterable[Item],
        choose: Callable[[int], Volume],
        bucket: Bucket | None = None,
        when_noted: WhenNoted = lambda _connection, _keys, _size_bytes: None,
    ) -> Outcome:
        """Copy objects, each batch to the volume that `choose` gives for its size [bytes].

        What cannot be copied is told, and the others are. Raise what ends all of it: VolumeFull, VolumeMissing or
        VolumeFailed of the target, DatabaseUnavailable; Stopped.
        """
        done = Outcome()
        for batch in batches(items, bucket):
            size_bytes = sum(item.size_bytes for item in batch)
            self.pause(bucket.take(size_bytes, clock.monotonic_s()) if bucket else 0)
            done.add(self._copy_batch(batch, choose(size_bytes), when_noted))
        return done

    def pause(self, seconds: float) -> None:
        """Wait, unless it is to end. Raise Stopped then."""
        if self.stop.wait(seconds) if seconds > 0 else self.stop.is_set():
            raise Stopped

    def _copy_batch(self, batch: Sequence[Item], target: Volume, when_noted: WhenNoted) -> Outcome:
        done = Outcome()
        self._read_from = {}
        placed = self._put(batch, target, done)
        verified = self._verify(placed, target, done)
        if not verified:
            return done
        try:
            with self.database.transaction() as connection:
                counted = rows.add_copies(
                    connection, target.volume_id, [(item.object_key, path) for item, path in verified]
                )
                done.size_bytes = sum(item.size_bytes for item, _path in verified if item.object_key in counted)
                when_noted(connection, sorted(counted), done.size_bytes)
        except DatabaseUnavailable:
            raise  # perhaps it was committed: the files stay
        except BaseException:
            for _item, path in verified:
                _remove(target, path)
            raise
        done.copied = counted
        for item, path in verified:  # deleted meanwhile, or somebody else was faster
            if item.object_key not in counted:
                _remove(target, path)
        return done

    def _put(self, batch: Sequence[Item], target: Volume, done: Outcome) -> list[tuple[Item, str]]:
        files = [
            ToPut(fresh_path(item.sources[0].path), self._read(item), item.size_bytes) for item in batch
        ]  # their chunks are read when it is their turn
        if len(files) == 1:
            try:
                outcomes: Sequence[bytes | PacsError] = [
                    target.put(files[0].path, files[0].chunks, batch[0].size_bytes)
                ]
            except PacsError as error:
                outcomes = [error]
        else:
            outcomes = target.put_many(files)
        placed, failures = [], []
        for item, file, outcome in zip(batch, files, outcomes, strict=True):
            if isinstance(outcome, PacsError):
                done.failed[item.object_key] = outcome
                failures.append(outcome)
            elif outcome != item.sha256:
                _remove(target, file.path)
                done.failed[item.object_key] = self._source_is_bad(item)
            else:
                placed.append((item, file.path))
        _log_failures(failures)
        if failures and not placed:  # was it the objects, or is it the volume?
            target.require_present()
            target.require_room(min(item.size_bytes for item in batch))
        return placed

    def _verify(self, placed: Sequence[tuple[Item, str]], target: Volume, done: Outcome) -> list[tuple[Item, str]]:
        verified = []
        digests = self._readers.map(lambda each: _digest(target, each[1]), placed)
        for (item, path), digest in zip(placed, list(digests), strict=True):
            if digest == item.sha256:
                verified.append((item, path))
                continue
            _remove(target, path)
            done.failed[item.object_key] = (
                digest
                if isinstance(digest, PacsError)
                else DigestMismatch(f"The volume at {target.location} did not keep what was written. Look at its disk.")
            )
            _log_failures([done.failed[item.object_key]])
        return verified

    def _read(self, item: Item) -> Iterator[bytes]:
        """An object's bytes from the first of its copies that can be opened."""
        error: PacsError | None = None
        for source in item.sources:
            try:
                chunks = self.volumes.get(source.volume_id).read(source.path)
                first = next(chunks, b"")
            except PacsError as fault:
                error = fault
                continue
            self._read_from[item.object_key] = source
            yield first
            yield from chunks
            return
        raise error or VolumeError("An object has no copy to be read from. Run `pacs reconcile run`.")

    def _source_is_bad(self, item: Item) -> PacsError:
        """Take the copy that was read out of service, if its disk too has other bytes than were stored."""
        source = self._read_from[item.object_key]
        where = self.volumes.row(source.volume_id).name
        error = DigestMismatch(
            f"A file on volume {where} is not what was stored; it is left there. Look at the volume's disk."
        )
        try:
            if self.volumes.get(source.volume_id).digest_on_disk(source.path) == item.sha256:
                return DigestMismatch(f"A file on volume {where} was read wrong once. It is tried again.")
            with self.database.transaction() as connection:
                withdraw_copy(connection, source.copy_key, source.path, "bad")
        except PacsError as fault:
            error = fault if isinstance(fault, DigestMismatch) else DigestMismatch(f"{error} {fault}")
        log.error("%s", error, extra={"object": item.object_key, "path": source.path})
        return error


def batches(items: Iterable[Item], bucket: Bucket | None = None) -> Iterator[list[Item]]:
    """Objects in the batches that they are copied in; with a bound on bytes a second, about a second's worth each."""
    size_max = BATCH_SIZE_BYTES
    if bucket is not None and bucket.bytes_per_s is not None:
        size_max = min(size_max, bucket.bytes_per_s)
    batch: list[Item] = []
    size_bytes = 0
    for item in items:
        if batch and (len(batch) >= BATCH_OBJECTS or size_bytes + item.size_bytes > size_max):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += item.size_bytes
    if batch:
        yield batch


def _put_one(target: Volume, file: ToPut) -> bytes | PacsError:
    try:
        return target.put(file.path, file.chunks, file.size_bytes)
    except PacsError as error:
        return error


def _digest(target: Volume, path: str) -> bytes | PacsError:
    try:
        return target.digest_on_disk(path)
    except PacsError as error:
        return error


def _remove(target: Volume, path: str) -> None:
    try:
        target.remove(path)
    except PacsError as error:
        log.warning("a file without a row stays until `pacs reconcile run`: %s", error, extra={"path": path})


def _log_failures(failures: Sequence[PacsError]) -> None:
    for error in failures[:_LOGGED_MAX]:
        log.error("an object stays where it is: %s", error)
    if len(failures) > _LOGGED_MAX:
        log.error("... and %d more", len(failures) - _LOGGED_MAX)
