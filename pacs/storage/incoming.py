"""A file on its way in: under a temporary name, hashed as it is written, safe once it is finished."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import VolumeMissing
from pacs.storage import durable

#: After how many bytes it is asked again whether there is room: well below the reserve that is left to others.
ROOM_STEP_BYTES = 16 << 20
#: How much may wait in memory before the disk is given it [bytes].
WRITEBACK_STEP_BYTES = 128 << 10


@dataclass(frozen=True)
class ReceivedFile:
    """A file that is safe on its volume under a temporary name."""

    #: Its path. A text: of a Path, each of a million files would cost some microseconds more.
    temporary: str
    sha256: bytes
    size_bytes: int


class Incoming:
    """A file that is being received, under a temporary name. Ends with `finish` or `abandon`."""

    def __init__(self, root: Path, device: int, require_room: Callable[[], None]) -> None:
        """Begin one on the volume at root, whose file system is `device` (st_dev).

        require_room raises where the volume is too full to go on.
        """
        self._root, self._require_room = root, require_room
        self._temporary = f"{root}/incoming/{secrets.token_hex(8)}.part"
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._room_until_bytes = 0
        self._given_bytes = 0  # to the disk
        self._fd = -1
        try:
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
            is_on_volume = os.fstat(self._fd).st_dev == device
        except OSError as error:
            self.abandon()
            raise durable.as_volume_error(error, root) from error
        if not is_on_volume:  # its mount went away since it was asked for
            self.abandon()
            raise VolumeMissing(f"The volume at {root} is gone. Is its disk attached and mounted?")

    def write(self, piece: memoryview | bytes) -> None:
        """Append bytes. Raise VolumeFull or VolumeFailed; then only `abandon` is left to do."""
        if self._size_bytes >= self._room_until_bytes:  # asked for now and then, not at every piece
            self._require_room()
            self._room_until_bytes += ROOM_STEP_BYTES
        try:
            _write_all(self._fd, memoryview(piece))
        except OSError as error:
            raise durable.as_volume_error(error, self._root) from error
        self._size_bytes += len(piece)
        if self._size_bytes - self._given_bytes >= WRITEBACK_STEP_BYTES:
            self.begin_writeback()
        self._digest.update(piece)

    def begin_writeback(self) -> None:
        """Have the kernel write what came so far to the disk already: the fsync at the end then finds most of it done,
        in a quarter of the time. A promise is only the fsync: an error of this one comes up there."""
        with contextlib.suppress(OSError):
            # Pages that are being written stay in memory; that they are no longer needed only starts the writing.
            os.posix_fadvise(self._fd, self._given_bytes, 0, os.POSIX_FADV_DONTNEED)
        self._given_bytes = self._size_bytes

    @property
    def sha256(self) -> bytes:
        """Of what was written so far."""
        return self._digest.digest()

    @property
    def size_bytes(self) -> int:
        """What was written so far [bytes]."""
        return self._size_bytes

    def finish(self) -> ReceivedFile:
        """fsync: the bytes are safe. Raise VolumeFull or VolumeFailed; then nothing is left behind."""
        try:
            durable.fsync_fd(self._fd)
            self._close()
        except OSError as error:
            self.abandon()
            raise durable.as_volume_error(error, self._root) from error
        return ReceivedFile(self._temporary, self._digest.digest(), self._size_bytes)

    def finish_unsynced(self) -> ReceivedFile:
        """Close the file. It is safe only when its file system has been synced (durable.sync_file_system)."""
        self._close()
        return ReceivedFile(self._temporary, self._digest.digest(), self._size_bytes)

    def abandon(self) -> None:
        """Remove what was received."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)  # noqa: PTH108

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
