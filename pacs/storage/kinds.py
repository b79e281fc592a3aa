"""What a volume is, of whatever kind, and what each kind promises.

All that reads, moves, scrubs or rebuilds is written against `Volume`. Only what receives needs more:
`ReceivingVolume`. docs/reference/volumes.md is made from the promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from pacs.errors import PacsError
from pacs.storage.volume import VolumeIdentity

if TYPE_CHECKING:
    from pacs.storage.incoming import ReceivedFile

Kind = Literal["local", "nfs", "smb", "s3", "sftp"]


@dataclass(frozen=True)
class Promise:
    """What a kind of volume keeps, honestly."""

    kind: Kind
    #: Whether objects may be taken in here: an answer of success rests on this volume alone.
    may_receive: bool
    #: Whether what was put outlives a loss of power there, as far as we can make sure.
    fsyncs: bool
    #: Whether a file gets its name only when it is whole, at once.
    renames: bool
    #: Whether `walk` is sure to show every file that was put.
    lists_all: bool
    #: Whether it says how much room is left.
    knows_room: bool
    #: How `digest_on_disk` comes past what is remembered on the way.
    far_side: str
    #: What it does not keep, and what follows from that, for a person.
    note: str = ""


@dataclass(frozen=True)
class Room:
    """How much fits, and how much is taken. None: it knows no bound."""

    size_bytes: int | None
    used_bytes: int
    #: What the service may still write.
    free_bytes: int | None

    @property
    def used_percent(self) -> float:
        """How full it is, of what the service may use; 0 where there is no bound."""
        if self.free_bytes is None:
            return 0.0
        return 100 * self.used_bytes / max(1, self.used_bytes + self.free_bytes)


@dataclass(frozen=True)
class FileStatus:
    """A file of a volume: its path relative to the volume, its size, and when it was last written (with time zone).

    is_plain: no link, pipe or the like, which no volume makes: such a one is nobody's, and what it stands for is not
    looked at.
    """

    path: str
    size_bytes: int
    modified_at: datetime
    is_plain: bool = True


@dataclass(frozen=True)
class ToPut:
    """A file to be put: its path, its bytes, and how many they are."""

    path: str
    chunks: Iterable[bytes | memoryview]
    size_bytes: int


class OpenFile(Protocol):
    """A file that is being read: opened once, and readable yet when it was removed meanwhile. Close it."""

    size_bytes: int

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset [bytes]; return how much came: less only at the end. Raise VolumeFailed."""
        ...

    def will_need(self, offset: int, size_bytes: int) -> None:
        """Have it read ahead, where that can be."""
        ...

    def close(self) -> None:
        """Close the file; once more does nothing."""
        ...


class Volume(Protocol):
    """An open volume. For use by many threads.

    Whatever is asked of it may raise VolumeMissing (it is not there now), VolumeFailed (it is, and does not do it) or
    ForeignVolume (another is in its place).
    """

    @property
    def identity(self) -> VolumeIdentity:
        """What its identity file said when it was opened."""
        ...

    @property
    def volume_id(self) -> str:
        """The id in its identity file."""
        ...

    @property
    def promise(self) -> Promise:
        """What its kind keeps."""
        ...

    @property
    def location(self) -> str:
        """Where it is, for a person: a path, or s3://bucket/prefix."""
        ...

    def require_present(self) -> None:
        """Raise VolumeMissing or ForeignVolume unless the volume that was opened is still there."""
        ...

    def require_writable(self) -> None:
        """The same, and raise VolumeFailed if it can only be read."""
        ...

    def room(self) -> Room:
        """How much room it has."""
        ...

    def require_room(self, size_bytes: int = 0) -> None:
        """Raise VolumeFull unless size_bytes more fit, with the reserve left."""
        ...

    def put(self, path: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Write a file: whole and durable under its own name when this returns, or not there at all.

        Return the SHA-256 of what was given: the caller compares it, and removes a file that is not what it meant to
        put. size_bytes, the sum of the chunks, is asked for beforehand. Raise VolumeFull, VolumeFailed, or what the
        chunks raise.
        """
        ...

    def put_many(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        """The same for many files, at less cost a file. Beside each the SHA-256 of what was given, or why it is not
        there."""
        ...

    def open(self, path: str) -> OpenFile:
        """Open a file for reading. Raise NotFound if it is not there though its volume is."""
        ...

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """A file's bytes in chunks, from an offset [bytes]. Raise NotFound."""
        ...

    def read_start(self, path: str, size_bytes: int) -> bytes:
        """A file's first bytes, at most size_bytes. Raise NotFound."""
        ...

    def size_of(self, path: str) -> int:
        """A file's size [bytes]. Raise NotFound."""
        ...

    def has(self, path: str) -> bool:
        """Whether there is a file at path."""
        ...

    def read_on_disk(self, path: str) -> Iterator[bytes | memoryview]:
        """A file's bytes as the far side has them, past caches. Each piece may be overwritten by the next. Raise
        NotFound."""
        ...

    def digest_on_disk(self, path: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """SHA-256 of a file as the far side has it, past caches: so that what was written is proven. Raise NotFound.

        on_bytes is told of what was read [bytes] as it is read, or at the end, and may wait: a bandwidth limit.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove a file whose row is gone or was never made; one that is gone already is no fault."""
        ...

    def quarantine(self, path: str) -> str:
        """Move a file that is nobody's to `quarantine/`, where a person can look at it; return its new path."""
        ...

    def walk(self, below: str = "") -> Iterator[FileStatus]:
        """Every file below a folder; below `objects/` and `incoming/` if none is named. Those of `objects/` come in the
        order of their paths' UTF-8 bytes.

        Raise VolumeFailed if a part of it cannot be listed.
        """
        ...

    def names(self, folder: str) -> list[str]:
        """The names of the files and folders that are directly in a folder, in no order; none if it is not there."""
        ...

    def read_small(self, path: str) -> bytes:
        """A small file beside the objects: the journal's copy, a note. Raise NotFound."""
        ...

    def replace_small(self, path: str, content: bytes) -> None:
        """Write a small file durably; a reader sees the old content or the new."""
        ...

    def close(self) -> None:
        """Let go of it; once more does nothing."""
        ...


class IncomingFile(Protocol):
    """A file on its way in, of a size that is not known yet, under a temporary name. Ends with finish or abandon."""

    def write(self, piece: memoryview | bytes) -> None:
        """Append bytes. Raise VolumeMissing, VolumeFull or VolumeFailed; then only `abandon` is left to do."""
        ...

    def begin_writeback(self) -> None:
        """Have what came so far written already, where that can be."""
        ...

    @property
    def sha256(self) -> bytes:
        """Of what was written so far."""
        ...

    @property
    def size_bytes(self) -> int:
        """What was written so far [bytes]."""
        ...

    def finish(self) -> ReceivedFile:
        """The bytes are safe when this returns. Raise VolumeMissing, VolumeFull or VolumeFailed."""
        ...

    def abandon(self) -> None:
        """Remove what was received."""
        ...


class ReceivingVolume(Volume, Protocol):
    """A volume that objects may be taken in on: what every volume is whose promise says `may_receive`."""

    def begin(self) -> IncomingFile:
        """Begin to receive a file. Raise VolumeMissing, VolumeFull or VolumeFailed."""
        ...

    def place(self, received: ReceivedFile, path: str) -> None:
        """Give a received file its own name, durably."""
        ...

    def discard(self, received: ReceivedFile) -> None:
        """Remove a received file that is not to be placed."""
        ...
