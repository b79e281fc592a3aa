"""A file on its way in to a share: hashed here, written by a share process, safe there once it is finished.

What is small is kept in memory until it is whole, so that a slow sender holds no process; what is larger flows.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from pacs.errors import PacsError, VolumeFailed
from pacs.storage.incoming import ReceivedFile
from pacs.storage.share_pool import Process

#: What is kept in memory before it is passed on [bytes].
BUFFER_SIZE_BYTES = 2 << 20
_T = TypeVar("_T")


class ShareIncoming:
    """A file that is being received, under a temporary name. Ends with `finish` or `abandon`."""

    def __init__(self, begin_stream: Callable[[], AbstractContextManager[Process]], location: str) -> None:
        """begin_stream gives a process for as long as its context lasts."""
        self._begin_stream, self._location = begin_stream, location
        self._stack = contextlib.ExitStack()
        self._process: Process | None = None
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def write(self, piece: memoryview | bytes) -> None:
        """Append bytes. Raise VolumeMissing, VolumeFull or VolumeFailed; then only `abandon` is left to do."""
        self._digest.update(piece)
        self._size_bytes += len(piece)
        self._buffer += piece
        if len(self._buffer) >= BUFFER_SIZE_BYTES:
            self._flush()

    def begin_writeback(self) -> None:
        """Pass on what came so far, if the file is one that flows."""
        if self._process is not None:
            self._flush()

    @property
    def sha256(self) -> bytes:
        """Of what was written so far."""
        return self._digest.digest()

    @property
    def size_bytes(self) -> int:
        """What was written so far [bytes]."""
        return self._size_bytes

    def finish(self) -> ReceivedFile:
        """fsync: the bytes are safe. Raise VolumeMissing, VolumeFull or VolumeFailed; then nothing counts."""
        process = self._flush()

        def end() -> ReceivedFile:
            process.wire.send(b"E")
            temporary, sha256, size_bytes = process.result()
            return ReceivedFile(temporary, bytes.fromhex(sha256), size_bytes)

        received = self._guarded(end)
        self._close()
        if (received.sha256, received.size_bytes) != (self.sha256, self._size_bytes):
            raise VolumeFailed(f"What reached the share at {self._location} is not what was sent. Look at its memory.")
        return received

    def abandon(self) -> None:
        """Remove what was received."""
        self._buffer.clear()
        process = self._process
        if process is None:
            return
        with contextlib.suppress(PacsError):  # the process says that it gave up, or does not answer

            def give_up() -> None:
                process.wire.send(b"X")
                process.result()

            self._guarded(give_up)
        self._close()

    def _flush(self) -> Process:
        if self._process is None:
            process = self._process = self._stack.enter_context(self._begin_stream())
            self._guarded(lambda: process.begin("receive", size_bytes=0))
        process = self._process

        def send() -> None:
            for at in range(0, len(self._buffer), BUFFER_SIZE_BYTES):
                process.wire.send(b"D", memoryview(self._buffer)[at : at + BUFFER_SIZE_BYTES])

        self._guarded(send)
        self._buffer = bytearray()
        return process

    def _guarded(self, act: Callable[[], _T]) -> _T:
        """Do a step of the stream. One that fails ends it, and what it means for the share is raised."""
        try:
            return act()
        except BaseException:
            self._process = None
            stack, self._stack = self._stack, contextlib.ExitStack()
            stack.__exit__(*sys.exc_info())
            raise

    def _close(self) -> None:
        self._process = None
        self._stack.close()
