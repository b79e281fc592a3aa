"""What the disk itself has of a file: read past the page cache, so that what was written is proven.

A buffer a thread is kept and used again: most objects are small, and making one takes longer than reading them.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

PIECE_SIZE_BYTES = 1 << 20
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in its place would be waited for
_kept = threading.local()


def digest(path: Path, on_bytes: Callable[[int], None] | None = None) -> bytes:
    """SHA-256 of a file. on_bytes is told of each piece [bytes], and may wait.

    Raise OSError; FileNotFoundError also if what is there is no file.
    """
    found = hashlib.sha256()
    for piece in pieces(path):
        found.update(piece)
        if on_bytes is not None:
            on_bytes(len(piece))
    return found.digest()


def pieces(path: Path) -> Iterator[memoryview]:
    """A file's bytes as the disk has them, in pieces: each is overwritten by the next, also of the thread's next file."""
    try:
        fd = os.open(path, _FLAGS | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = _open_dropped(path)  # a file system that knows no O_DIRECT
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "what is there is no file")
        buffer, done = _buffer(), 0
        while True:
            size = _read(fd, buffer)
            if size:
                yield buffer[:size]
            done += size
            if size == 0 or (done == status.st_size and size < len(buffer)):
                return
    finally:
        os.close(fd)


def _read(fd: int, buffer: memoryview) -> int:
    return os.readv(fd, [buffer])


def _open_dropped(path: Path) -> int:
    fd = os.open(path, _FLAGS)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return fd


def _buffer() -> memoryview:
    """This thread's buffer, page-aligned as O_DIRECT wants it."""
    found: memoryview | None = getattr(_kept, "buffer", None)
    if found is None:
        found = _kept.buffer = memoryview(mmap.mmap(-1, PIECE_SIZE_BYTES))
    return found
