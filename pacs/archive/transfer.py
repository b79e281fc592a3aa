"""Objects copied to another volume, in batches that share the cost of syncing and committing.

    read → put under a name of its own, synced → read back past caches, its digest compared → rows committed

A file whose row was surely not made is removed at once. Where the outcome is unknown (the database went away in the
middle) the files stay, and reconciliation decides. Nothing is ever taken from where it was read.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from pacs import clock
from pacs.archive.batches import READ_AT_ONCE, Item, ReadAhead, Source, batches, some_at_once
from pacs.archive.volumes import Volumes
from pacs.errors import DatabaseUnavailable, DigestMismatch, NotFound, PacsError, PathTaken, VolumeError
from pacs.index import movement as rows
from pacs.index.database import Connection, Database
from pacs.index.retrieve import withdraw_copy
from pacs.model.schedule import Bucket
from pacs.storage.kinds import ToPut, Volume
from pacs.storage.names import fresh_path

log = logging.getLogger(__name__)

_LOGGED_MAX = 5


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


@dataclass
class _Placed:
    """Files of a batch that were put, and their digests as the far side has them: some files a future."""

    target: Volume
    files: list[tuple[Item, str]] = field(default_factory=list)
    digests: list[Future[list[bytes | PacsError]]] = field(default_factory=list)


class Stopping(Protocol):
    """Says that it is to end: an event of this process or of several."""

    def is_set(self) -> bool:
        """Whether it is to end."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait so long [s], at most until it is to end."""
        ...


class Stopped(Exception):
    """Whoever asked for it wants it to end."""


class Transfer:
    """Copies objects to volumes of an instance. For use by one thread; close it."""

    def __init__(self, database: Database, volumes: Volumes, stop: Stopping | None = None) -> None:
        self.database, self.volumes = database, volumes
        self.stop = stop or threading.Event()
        self._readers = ThreadPoolExecutor(READ_AT_ONCE, thread_name_prefix="read")
        #: Which copy each object was read from last.
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
        done, self._read_from = Outcome(), {}
        waiting: _Placed | None = None
        ahead = ReadAhead(self._readers, self._read)
        try:
            for batch in ahead.batches(batches(items, bucket)):
                size_bytes = sum(item.size_bytes for item in batch)
                paced = bucket if bucket and len(batch) == 1 else None  # one may be larger than a second's worth
                self.pause(bucket.take(size_bytes, clock.monotonic_s()) if bucket and not paced else 0)
                placed = self._put(batch, choose(size_bytes), ahead, done, paced)
                # One batch is read back while the next is written.
                before, waiting = waiting, placed
                if before is not None:
                    self._note(before, done, when_noted)
        finally:
            ahead.close()
            if waiting is not None:
                self._note(waiting, done, when_noted)
        return done

    def pause(self, seconds: float) -> None:
        """Wait, unless it is to end. Raise Stopped then."""
        if self.stop.wait(seconds) if seconds > 0 else self.stop.is_set():
            raise Stopped

    def _paced(self, chunks: Iterator[bytes], bucket: Bucket) -> Iterator[bytes]:
        for chunk in chunks:
            self.pause(bucket.take(len(chunk), clock.monotonic_s()))
            yield chunk

    def _put(
        self, batch: Sequence[Item], target: Volume, ahead: ReadAhead, done: Outcome, bucket: Bucket | None
    ) -> _Placed:
        """Put a batch, with the bucket at its pace piece by piece, and begin to read it back."""
        read = ahead.chunks if bucket is None else lambda item: self._paced(ahead.chunks(item), bucket)
        files = [ToPut(_path_of(item), read(item), item.size_bytes) for item in batch]
        outcomes = target.put_many(files) if len(files) > 1 else [_put_one(target, files[0])]
        placed, failures = _Placed(target), []
        for item, file, outcome in zip(batch, files, outcomes, strict=True):
            if isinstance(outcome, PacsError):
                done.failed[item.object_key] = outcome
                failures.append(outcome)
            elif outcome != item.sha256:
                _remove(target, file.path)
                done.failed[item.object_key] = self._source_is_bad(item)
            else:
                placed.files.append((item, file.path))
        for some in some_at_once(placed.files):
            placed.digests.append(self._readers.submit(_digests, target, [path for _item, path in some]))
        _log_failures(failures)
        if failures and not placed.files:
            _require_not_the_target(failures, target)
        return placed

    def _note(self, placed: _Placed, done: Outcome, when_noted: WhenNoted) -> None:
        """Commit what was read back as it should be; remove the rest."""
        target, verified = placed.target, self._verified(placed, done)
        if not verified:
            return
        try:
            with self.database.transaction() as connection:
                paths = [(item.object_key, path) for item, path in verified]
                counted = rows.add_copies(connection, target.volume_id, paths)
                size_bytes = sum(item.size_bytes for item, _path in verified if item.object_key in counted)
                when_noted(connection, sorted(counted), size_bytes)
        except DatabaseUnavailable:
            raise  # perhaps it was committed: the files stay
        except BaseException:
            for _item, path in verified:
                _remove(target, path)
            raise
        done.copied |= counted
        done.size_bytes += size_bytes
        for item, path in verified:  # deleted meanwhile, or somebody else was faster
            if item.object_key not in counted and not item.path:  # else it may be the other's file
                _remove(target, path)

    def _verified(self, placed: _Placed, done: Outcome) -> list[tuple[Item, str]]:
        verified = []
        digests = itertools.chain.from_iterable(future.result() for future in placed.digests)
        for (item, path), digest in zip(placed.files, digests, strict=True):
            if digest == item.sha256:
                verified.append((item, path))
                continue
            _remove(placed.target, path)
            error = DigestMismatch(
                f"The volume at {placed.target.location} did not keep what was written. Look at its disk."
            )
            done.failed[item.object_key] = digest if isinstance(digest, PacsError) else error
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


def _path_of(item: Item) -> str:
    return item.path or fresh_path(item.like or item.sources[0].path)


def _require_not_the_target(failures: Sequence[PacsError], target: Volume) -> None:
    """Nothing of a batch could be put: was it the objects, or is it the volume? Raise the error if it is the volume."""
    target.require_present()
    for error in failures:
        if isinstance(error, NotFound | DigestMismatch | PathTaken):
            return
    raise failures[0]


def _put_one(target: Volume, file: ToPut) -> bytes | PacsError:
    try:
        return target.put(file.path, file.chunks, file.size_bytes)
    except PacsError as error:
        return error


def _digests(target: Volume, paths: Sequence[str]) -> list[bytes | PacsError]:
    found: list[bytes | PacsError] = []
    for path in paths:
        try:
            found.append(target.digest_on_disk(path))
        except PacsError as error:
            found.append(error)
    return found


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
