"""A file of a mounted volume that is being read, and a file object over one of whatever kind."""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pacs.errors import NotFound, VolumeFailed
from pacs.storage.kinds import OpenFile, Volume

CHUNK_SIZE_BYTES = 1 << 20
_PAGE_BYTES = 4096
# A pipe in a file's place would be waited for, a link be followed to where nobody looks after the file.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_kept = threading.local()


class LocalFile:
    """An open file of a file system. Close it."""

    def __init__(self, path: Path, root: Path, require_present: Callable[[], None]) -> None:
        """Open a file. Raise NotFound if it is not there, what require_present raises if its volume is not there."""
        self._root = root
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size_bytes = os.fstat(self._fd).st_size
        except FileNotFoundError:
            require_present()  # else it is the volume that is missing, and no file
            raise NotFound(f"A file is missing from the volume at {root}. Run `pacs reconcile run`.") from None
        except OSError as error:
            raise unreadable(root, error) from error

    def __del__(self) -> None:
        self.close()  # who was to read it went away before the first byte

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset [bytes]; return how much came: less only at the end. Raise VolumeFailed."""
        done = 0
        try:
            while done < len(buffer):
                size = os.preadv(self._fd, [buffer[done:]], offset + done)
                if size == 0:
                    break
                done += size
        except OSError as error:
            raise unreadable(self._root, error) from error
        return done

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """The bytes from an offset in chunks. Raise VolumeFailed."""
        try:
            # As much as is there is asked for: a small file is read by one call, and into no more memory than it takes.
            while offset < max(1, self.size_bytes):
                chunk = os.pread(self._fd, min(CHUNK_SIZE_BYTES, max(1, self.size_bytes - offset)), offset)
                if not chunk:
                    return  # it has become shorter
                yield chunk
                offset += len(chunk)
        except OSError as error:
            raise unreadable(self._root, error) from error

    def will_need(self, offset: int, size_bytes: int) -> None:
        """Let the kernel begin to read ahead."""
        os.posix_fadvise(self._fd, offset, size_bytes, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the file; once more does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def read_past_cache(path: Path) -> Iterator[memoryview]:
    """The file's bytes from the disk itself: O_DIRECT, or where the file system has none, after dropping its pages.

    Each piece is overwritten by the next, also by one of the thread's next file: most objects are small, and making a
    buffer takes longer than reading them. Raise OSError; FileNotFoundError also if what is there is no file.
    """
    is_direct = True
    try:
        fd = os.open(path, _FLAGS | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd, is_direct = os.open(path, _FLAGS), False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "what is there is no file")
        if not is_direct:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        # Of a small file no more is asked for than it should have and a byte: the kernel pins what it is given.
        buffer, done = _buffer()[: (status.st_size // _PAGE_BYTES + 1) * _PAGE_BYTES], 0
        while size := os.readv(fd, [buffer]):
            yield buffer[:size]
            done += size
            if done == status.st_size and size < len(buffer):
                break  # one call less
    finally:
        os.close(fd)


def _buffer() -> memoryview:
    """This thread's buffer, page-aligned as O_DIRECT wants it."""
    found: memoryview | None = getattr(_kept, "buffer", None)
    if found is None:
        found = _kept.buffer = memoryview(mmap.mmap(-1, CHUNK_SIZE_BYTES))
    return found


def unreadable(root: Path, error: OSError) -> VolumeFailed:
    """The error of the tree that an error of a read below `root` stands for."""
    return VolumeFailed(f"A file on the volume at {root} cannot be read: {error.strerror}. Look at its disk.")


class ReadsPieces(Protocol):
    """A volume that is asked for pieces of a file, and holds none open."""

    def read_piece(self, path: str, offset: int, size_bytes: int) -> tuple[bytes, int]:
        """Bytes of a file from an offset, and the file's size [bytes]. Raise NotFound."""
        ...


class PieceFile:
    """A file that is being read piece by piece; nothing is held open on the far side for it."""

    def __init__(self, volume: ReadsPieces, path: str, piece_bytes: int) -> None:
        """Open a file, of which at least piece_bytes are read at once. Raise NotFound."""
        self._volume, self._path, self._piece_bytes, self._start = volume, path, piece_bytes, 0
        self._window, self.size_bytes = volume.read_piece(path, 0, piece_bytes)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset [bytes]; return how much came: less only at the end. Raise VolumeFailed."""
        done = 0
        while done < len(buffer) and offset + done < self.size_bytes:
            at = offset + done - self._start
            if not 0 <= at < len(self._window):
                wanted = max(len(buffer) - done, self._piece_bytes)
                self._window, _size = self._volume.read_piece(self._path, offset + done, wanted)
                self._start, at = offset + done, 0
                if not self._window:
                    break
            piece = self._window[at : at + len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def will_need(self, offset: int, size_bytes: int) -> None:
        """Nothing: a piece is read ahead with each request."""

    def close(self) -> None:
        """Let go of what was read; once more does nothing."""
        self._window = b""


class _Stream(io.RawIOBase):
    """An OpenFile as Python's own file objects are."""

    def __init__(self, file: OpenFile, name: str) -> None:
        self._file, self._at = file, 0
        self.name = name  # as pydicom asks for it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._file.read_into(memoryview(buffer).cast("B"), self._at)
        self._at += size
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size_bytes}[whence]
        self._at = start + offset
        return self._at


@contextlib.contextmanager
def stream(volume: Volume, path: str) -> Iterator[io.BufferedReader]:
    """A file of a volume as a file object. Raise NotFound."""
    file = volume.open(path)
    try:
        yield io.BufferedReader(_Stream(file, path))
    finally:
        file.close()
