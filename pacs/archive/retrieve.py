"""Giving objects back: which are asked for, and the bytes of each from whichever of its copies can be read.

All copies of an object are the same bytes. So a copy that is missing, has another size, or cannot be read is left for
the next one at any moment, in the middle of an object too, and is taken out of service, so that nobody else is sent to
it and `pacs reconcile run` and the scrub know. An object whose copies all moved away meanwhile is looked up again.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pacs.archive.asking import Asking
from pacs.archive.volumes import Volumes
from pacs.errors import CannotUnderstand, NotFound, PacsError, TryAgainLater, VolumeError
from pacs.index import retrieve as rows
from pacs.index.database import Database, Row
from pacs.index.recalls import FAR_TIER
from pacs.model import part10
from pacs.model.recode import Changes
from pacs.storage.kinds import OpenFile, Volume

log = logging.getLogger(__name__)

#: How much of an object is read at once [bytes].
PIECE_SIZE_BYTES = 1 << 20

#: How often a peer is looked after while a volume lets us wait [s].
_LOOK_ROUND_S = 0.25
#: Who waits for volumes that are not disks of ours, so that an association need not.
_slow = ThreadPoolExecutor(64, thread_name_prefix="slow")
_T = TypeVar("_T")

_NOT_AT_HAND = "No good copy of the object is at hand. Run `pacs reconcile run`, and look at its volumes."


@dataclass(frozen=True, slots=True)
class Copy:
    """Where an object's bytes are."""

    copy_key: int
    volume_id: str
    path: str
    tier: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object that a retrieve is to send, and its copies, the best first."""

    object_key: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    copies: tuple[Copy, ...]
    study_key: int = 0


#: Gives what is to be changed in some objects' data sets when they are sent, by object key. Corrections come this way.
GiveChanges = Callable[[Sequence[Wanted]], Mapping[int, Changes]]


class Retrieve:
    """Finds objects and their bytes on the volumes."""

    def __init__(
        self,
        database: Database,
        volumes: Volumes,
        give_changes: GiveChanges = lambda _objects: {},
        asking: Asking | None = None,
    ) -> None:
        """`asking` notes what is retrieved, and has what is on tier 3 recalled."""
        self.database = database
        self.volumes = volumes
        self.give_changes = give_changes
        self._asking = asking

    def wanted(self, unique_keys: Mapping[str, Collection[str]]) -> list[Wanted]:
        """The objects below the entities with these unique keys (keyword → values)."""
        found = rows.objects_below(self.database, unique_keys)
        if self._asking is not None:
            far = {row["study_key"] for row in found if not self._is_near(row)}
            self._asking.note({row["study_key"] for row in found}, far)
        return [_wanted(row) for row in found]

    def _is_near(self, row: Row) -> bool:
        """Whether an object is on tier 1 or 2 of a volume that is here, or nowhere."""
        here = self.volumes.by_id
        copies = list(zip(row["volume_ids"] or (), row["tiers"] or (), strict=True))
        return not copies or any(tier < FAR_TIER and volume_id in here for volume_id, tier in copies)

    def open(self, wanted: Wanted, while_waiting: Callable[[], None] = lambda: None) -> Stored:
        """An object's data set, open for reading; close it. Raise NotFound if no copy of it can be read.

        `while_waiting` is called now and then while a volume that is not a disk of ours lets it wait; what it raises
        ends that.
        """
        return Stored(self, wanted, while_waiting)

    def copies_now(self, wanted: Wanted) -> tuple[Copy, ...]:
        """An object's copies as the index has them now."""
        with self.database.transaction() as connection:
            return _copies(rows.copies_of(connection, wanted.object_key))

    def withdraw(self, wanted: Wanted, copy: Copy, state: str, error: PacsError) -> None:
        """Take a copy whose file is missing or bad out of service."""
        try:
            with self.database.transaction() as connection:
                is_done = rows.withdraw_copy(connection, copy.copy_key, copy.path, state)
        except PacsError as fault:
            log.warning("a %s copy could not be taken out of service: %s", state, fault)
            return
        if is_done:
            log.error(
                "a copy is %s and out of service: %s", state, error,
                extra={"object": wanted.object_key, "path": copy.path},
            )  # fmt: skip


class Stored:
    """The data set of a stored object, from whichever of its copies can be read."""

    def __init__(self, retrieve: Retrieve, wanted: Wanted, while_waiting: Callable[[], None]) -> None:
        self.wanted = wanted
        self.while_waiting = while_waiting
        self._retrieve = retrieve
        self._tried: set[Copy] = set()
        is_far = bool(wanted.copies) and wanted.copies[0].tier >= FAR_TIER
        # Of what was far when it was asked for, a nearer copy may have come back meanwhile.
        self._candidates = iter(retrieve.copies_now(wanted) if is_far else wanted.copies)
        self._looked_again = False
        self._problem = ""
        self._is_slow = False
        self._file: OpenFile | None = None
        self._copy: Copy | None = None
        self._dataset_offset = 0
        self._open_next()

    @property
    def copy(self) -> Copy:
        """The copy that is being read."""
        assert self._copy is not None
        return self._copy

    @property
    def size_bytes(self) -> int:
        """Size of the data set."""
        return self.wanted.size_bytes - self._dataset_offset

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer from an offset in the data set [bytes]. Raise NotFound if no copy can be read any more."""
        while True:
            assert self._file is not None and self._copy is not None
            try:
                read = partial(self._file.read_into, buffer, self._dataset_offset + offset)
                if self._waiting(read) == len(buffer):
                    return
                error: PacsError = CannotUnderstand("A file has become shorter than it was.")
            except PacsError as fault:
                error = fault
            self._leave(self._copy, "bad", error)
            self._open_next()

    def pieces(self, offset: int = 0) -> Iterator[memoryview]:
        """The data set's bytes from an offset [bytes]; each piece is overwritten by the next."""
        buffer = memoryview(bytearray(max(0, min(PIECE_SIZE_BYTES, self.size_bytes - offset))))
        while offset < self.size_bytes:
            piece = buffer[: self.size_bytes - offset]
            self.read_into(piece, offset)
            yield piece
            offset += len(piece)

    def will_need(self) -> None:
        """Let the kernel begin to read it."""
        if self._file is not None:
            self._file.will_need(0, self.wanted.size_bytes)

    def close(self) -> None:
        """Close it; once more does nothing."""
        if self._file is not None:
            self._file.close()

    def _open_next(self) -> None:
        self.close()
        for copy in self._next_copies():
            self._tried.add(copy)
            try:
                volume = self._retrieve.volumes.get(copy.volume_id)
                self._is_slow = volume.promise.kind != "local"
                self._copy = copy
                self._file, self._dataset_offset = self._waiting(partial(self._open, volume, copy))
                return
            except PacsError as error:
                self._leave(copy, "missing" if isinstance(error, NotFound) else "bad", error)
            self.close()
        raise NotFound(f"Not at hand: {self._problem}" if self._problem else _NOT_AT_HAND)

    def _open(self, volume: Volume, copy: Copy) -> tuple[OpenFile, int]:
        file = volume.open(copy.path)
        try:
            return file, self._check(file)
        except BaseException:
            file.close()
            raise

    def _leave(self, copy: Copy, state: str, error: PacsError) -> None:
        """Take a copy out of service, unless it is its volume that is not there: its copies are as good as they were.

        A share or a store that does not answer is as good as not there; only a disk of ours says of a file that it
        cannot be read.
        """
        if isinstance(error, VolumeError) or (self._is_slow and isinstance(error, TryAgainLater)):
            log.warning("a volume's copies are left alone: %s", error)
            self._problem = str(error)
        else:
            self._retrieve.withdraw(self.wanted, copy, state, error)

    def _waiting(self, call: Callable[[], _T]) -> _T:
        """What a call gives. Of a volume that is not a disk of ours it is waited for with an eye on the peer."""
        if not self._is_slow:
            return call()
        future = _slow.submit(call)
        while True:
            done, _not_done = wait([future], _LOOK_ROUND_S)
            if done:
                return future.result()
            self.while_waiting()

    def _next_copies(self) -> Iterator[Copy]:
        yield from self._candidates
        if not self._looked_again:
            self._looked_again = True
            self._candidates = iter([c for c in self._retrieve.copies_now(self.wanted) if c not in self._tried])
            yield from self._candidates

    def _check(self, file: OpenFile) -> int:
        """Where the data set starts in a file that is the object's, as far as can be told without reading it all."""
        wanted = self.wanted
        if file.size_bytes != wanted.size_bytes:
            raise CannotUnderstand("A file has another size than was stored. Run `pacs reconcile run`.")
        expected = part10.encode_file_meta(
            wanted.sop_class_uid, wanted.sop_instance_uid, wanted.transfer_syntax_uid
        )  # fmt: skip
        start = bytearray(min(part10.START_BYTES_MAX, file.size_bytes))
        file.read_into(memoryview(start), 0)
        if start.startswith(expected):
            return len(expected)
        meta = part10.decode_file_meta(bytes(start))
        if (meta.sop_instance_uid, meta.transfer_syntax_uid) != (wanted.sop_instance_uid, wanted.transfer_syntax_uid):
            raise CannotUnderstand("A file is another object's. Run `pacs reconcile run`.")
        return meta.dataset_offset


def _wanted(row: Row) -> Wanted:
    return Wanted(
        object_key=row["object_key"],
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=sys.intern(row["sop_class_uid"]),  # a retrieve of a hundred thousand objects holds few of these
        transfer_syntax_uid=sys.intern(row["transfer_syntax_uid"]),
        size_bytes=row["size_bytes"],
        copies=_copies(row),
        study_key=row["study_key"],
    )


def _copies(row: Row) -> tuple[Copy, ...]:
    columns = (row[name] or () for name in ("copy_keys", "volume_ids", "paths", "tiers"))
    found = zip(*columns, strict=True)
    return tuple(Copy(*each) for each in found)
