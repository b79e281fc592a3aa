"""Giving objects back: which are asked for, and the bytes of each from whichever of its copies can be read.

All copies of an object are the same bytes. So a copy that is missing, has another size, or cannot be read is left for
the next one at any moment, in the middle of an object too, and is taken out of service, so that nobody else is sent to
it and `pacs reconcile run` and the scrub know. An object whose copies all moved away meanwhile is looked up again.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pacs.archive.volumes import Volumes
from pacs.errors import CannotUnderstand, NotFound, PacsError, VolumeError
from pacs.index import retrieve as rows
from pacs.index.database import Database, Row
from pacs.model import part10
from pacs.model.recode import Changes
from pacs.storage.kinds import OpenFile

log = logging.getLogger(__name__)

#: How much of an object is read at once [bytes].
PIECE_SIZE_BYTES = 1 << 20

_NOT_AT_HAND = "No good copy of the object is at hand. Run `pacs reconcile run`, and look at its volumes."


@dataclass(frozen=True, slots=True)
class Copy:
    """Where an object's bytes are."""

    copy_key: int
    volume_id: str
    path: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object that a retrieve is to send, and its copies, the best first."""

    object_key: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    copies: tuple[Copy, ...]


#: Gives what is to be changed in some objects' data sets when they are sent, by object key. Corrections come this way.
GiveChanges = Callable[[Sequence[Wanted]], Mapping[int, Changes]]


class Retrieve:
    """Finds objects and their bytes on the volumes."""

    def __init__(self, database: Database, volumes: Volumes, give_changes: GiveChanges = lambda _objects: {}) -> None:
        self.database = database
        self.volumes = volumes
        self.give_changes = give_changes

    def wanted(self, unique_keys: Mapping[str, Collection[str]]) -> list[Wanted]:
        """The objects below the entities with these unique keys (keyword → values)."""
        return [_wanted(row) for row in rows.objects_below(self.database, unique_keys)]

    def open(self, wanted: Wanted) -> Stored:
        """An object's data set, open for reading; close it. Raise NotFound if no copy of it can be read."""
        return Stored(self, wanted)

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

    def __init__(self, retrieve: Retrieve, wanted: Wanted) -> None:
        self.wanted = wanted
        self._retrieve = retrieve
        self._tried: set[Copy] = set()
        self._candidates = iter(wanted.copies)
        self._looked_again = False
        self._file: OpenFile | None = None
        self._copy: Copy | None = None
        self._dataset_offset = 0
        self._open_next()

    @property
    def size_bytes(self) -> int:
        """Size of the data set."""
        return self.wanted.size_bytes - self._dataset_offset

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer from an offset in the data set [bytes]. Raise NotFound if no copy can be read any more."""
        while True:
            assert self._file is not None and self._copy is not None
            try:
                if self._file.read_into(buffer, self._dataset_offset + offset) == len(buffer):
                    return
                error: PacsError = CannotUnderstand("A file has become shorter than it was.")
            except PacsError as fault:
                error = fault
            self._retrieve.withdraw(self.wanted, self._copy, "bad", error)
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
            volume = self._retrieve.volumes.by_id.get(copy.volume_id)
            if volume is None:
                continue
            try:
                self._file, self._copy = volume.open(copy.path), copy
                self._dataset_offset = self._check(self._file)
                return
            except VolumeError as error:  # the volume is not there: its copies are as good as they were
                log.warning("a volume's copies are left alone: %s", error)
            except PacsError as error:
                state = "missing" if isinstance(error, NotFound) else "bad"
                self._retrieve.withdraw(self.wanted, copy, state, error)
            self.close()
        raise NotFound(_NOT_AT_HAND)

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
    )


def _copies(row: Row) -> tuple[Copy, ...]:
    found = zip(row["copy_keys"] or (), row["volume_ids"] or (), row["paths"] or (), strict=True)
    return tuple(Copy(*each) for each in found)
