"""A data set on its way out: as it is stored, with a corrected header before its stored pixels, or in another transfer
syntax.

As stored, and with changes: streamed, pixels are never decoded and never whole in memory. Between transfer syntaxes
that do not compress pixels: re-encoded as it streams, read twice (how long will it be, can it be done at all?). With
pixels to be decoded or compressed: in memory, `at_once` objects in the process and none whose pixels are larger than
`size_bytes_max`, so that any number of retrieves cannot exhaust the memory.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pacs.archive.retrieve import Retrieve, Stored, Wanted
from pacs.errors import CannotUnderstand
from pacs.model import codec
from pacs.model.dataset import DEFLATED
from pacs.model.recode import Changes, recode, recode_start

#: How much of an object is read before it is its turn [bytes]: with most CT and MR images all of it.
AHEAD_SIZE_BYTES = 1 << 20
_LOOK_ROUND_S = 0.25


@dataclass
class Outgoing:
    """A data set to be sent: its size and its bytes. A piece is overwritten by the next. Close it."""

    size_bytes: int
    pieces: Iterator[bytes | memoryview]
    stored: Stored

    def close(self) -> None:
        """Close the file."""
        self.stored.close()


class Transcoding:
    """What transcoding may take of the process's memory."""

    def __init__(self, size_bytes_max: int, at_once: int = 1) -> None:
        self.size_bytes_max = size_bytes_max
        self._places = threading.BoundedSemaphore(at_once)

    def transcode(
        self, stored: Stored, target: str, changes: Changes | None, while_waiting: Callable[[], None]
    ) -> list[bytes]:
        """A stored data set with its pixels in another encoding. Raise CannotUnderstand with the reason if it can't be.

        `while_waiting` is called now and then until it is its turn; what it raises ends the waiting.
        """
        self._require_room(stored.size_bytes)
        while not self._places.acquire(timeout=_LOOK_ROUND_S):
            while_waiting()
        try:
            dataset = b"".join(map(bytes, stored.pieces()))
            source = stored.wanted.transfer_syntax_uid
            self._require_room(codec.decoded_size_bytes(dataset, source))
            return codec.transcode(dataset, source, target, changes)
        finally:
            self._places.release()

    def _require_room(self, size_bytes: int) -> None:
        if size_bytes > self.size_bytes_max:
            raise CannotUnderstand(
                "The object is too large to be transcoded. Let the receiver accept its stored transfer syntax, or "
                "raise transcode_size_bytes_max."
            )


def open_outgoing(
    retrieve: Retrieve,
    wanted: Wanted,
    target: str,
    transcoding: Transcoding,
    changes: Changes | None = None,
    buffer: memoryview | None = None,
    while_waiting: Callable[[], None] = lambda: None,
) -> Outgoing:
    """An object's data set in transfer syntax `target`. What is sent as stored is read ahead into the buffer.

    Raise an error of the tree with the reason if it cannot be given so.
    """
    stored = retrieve.open(wanted, while_waiting)
    try:
        if target == wanted.transfer_syntax_uid:
            if not changes:
                return _as_stored(stored, buffer)
            if target not in DEFLATED:
                return _with_changes(stored, changes)
        elif not codec.may_become(wanted.transfer_syntax_uid, target):
            raise CannotUnderstand(
                "The receiver takes neither the object's transfer syntax nor one it can be changed to."
            )
        elif not (wanted.transfer_syntax_uid in codec.NATIVE and target in codec.NATIVE):
            pieces = transcoding.transcode(stored, target, changes, while_waiting)
            return Outgoing(sum(map(len, pieces)), iter(pieces), stored)
        return _recoded(stored, target, changes)
    except BaseException:
        stored.close()
        raise


def _as_stored(stored: Stored, buffer: memoryview | None) -> Outgoing:
    size = stored.size_bytes
    if buffer is None or len(buffer) < min(size, AHEAD_SIZE_BYTES):
        buffer = memoryview(bytearray(min(size, AHEAD_SIZE_BYTES)))
    first = buffer[:size]
    stored.read_into(first, 0)

    def pieces() -> Iterator[memoryview]:
        yield first
        at = len(first)
        while at < size:
            piece = buffer[: size - at]
            stored.read_into(piece, at)
            yield piece
            at += len(piece)

    return Outgoing(size, pieces(), stored)


def _with_changes(stored: Stored, changes: Changes) -> Outgoing:
    start, replaced_bytes = recode_start(stored.pieces(), stored.wanted.transfer_syntax_uid, changes)
    rest = stored.pieces(replaced_bytes)
    return Outgoing(len(start) + stored.size_bytes - replaced_bytes, itertools.chain([start], rest), stored)


def _recoded(stored: Stored, target: str, changes: Changes | None) -> Outgoing:
    def recoded() -> Iterator[bytes]:
        return recode(stored.pieces(), stored.wanted.transfer_syntax_uid, target, changes)

    return Outgoing(sum(map(len, recoded())), recoded(), stored)
