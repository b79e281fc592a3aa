"""A file of a volume that is being read: opened once, and readable yet when it was removed meanwhile."""

from __future__ import annotations

import os

from pacs.errors import NotFound, VolumeFailed
from pacs.storage.files import Volume


class OpenFile:
    """An open file. Close it."""

    def __init__(self, volume: Volume, path: str) -> None:
        """Open a file. Raise NotFound if it is not there, VolumeMissing if its volume is not, VolumeFailed."""
        self.volume = volume
        self._fd = -1
        try:
            self._fd = os.open(volume.root / path, os.O_RDONLY | os.O_CLOEXEC)
            self.size_bytes = os.fstat(self._fd).st_size
        except FileNotFoundError:
            volume.require_present()  # else it is the volume that is missing, and no file
            raise NotFound(f"A file is missing from the volume at {volume.root}. Run `pacs reconcile run`.") from None
        except OSError as error:
            raise self._unreadable(error) from error

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
            raise self._unreadable(error) from error
        return done

    def will_need(self, offset: int, size_bytes: int) -> None:
        """Let the kernel begin to read ahead."""
        os.posix_fadvise(self._fd, offset, size_bytes, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the file; once more does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _unreadable(self, error: OSError) -> VolumeFailed:
        return VolumeFailed(
            f"A file on the volume at {self.volume.root} cannot be read: {error.strerror}. Look at its disk."
        )
