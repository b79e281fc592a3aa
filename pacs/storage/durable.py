"""Writes that are on the disk when they return.

What fsync gives: after it returns, the bytes outlive a loss of power, as far as the disk tells the truth. What it
does not give: after fsync has failed once, the kernel may have dropped the pages, and a second call would succeed
without them. So nothing here tries an fsync again; the file has failed. A new name in a folder is durable only after
the folder itself was fsynced, and a new folder only after its parent was.

Every fsync of the service goes through `fsync_fd` or `sync_file_system`, so that a test can make them no-ops and show
that this is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from pacs.errors import PacsError, VolumeFailed, VolumeFull

_libc = ctypes.CDLL(None, use_errno=True)


def fsync_fd(fd: int) -> None:
    """fsync an open file or folder."""
    os.fsync(fd)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    with open_folder(folder) as fd:
        fsync_fd(fd)


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """A file descriptor of a folder while the block runs."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def sync_file_system(fd: int) -> None:
    """Write all that waits to go to the file system that an open file is on, names too (syncfs(2)).

    Raise OSError if any of it could not be written since the file was opened (Linux 5.8 and later).
    """
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def make_folders(folder: Path) -> None:
    """Make folder and its missing parents, each of them durable in its own parent."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        # Another association may have made it meanwhile. Its name is fsynced all the same: the other's fsync may
        # not have happened yet when our object is acknowledged.
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o750)
        fsync_folder(path.parent)


def as_volume_error(error: OSError, where: Path) -> PacsError:
    """The error of the tree that an operating-system error of a write at `where` stands for."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return VolumeFull(f"No room left at {where}. Enlarge its disk, or lower the tier's marks.")
    return VolumeFailed(f"Writing at {where} failed: {error.strerror}. Look at its disk and at the kernel's log.")


def create_file(path: Path, content: bytes, mode: int = 0o640) -> None:
    """Write a new file under a temporary name, then give it its own, all of it durable.

    Raise FileExistsError if path exists; a reader never sees half a file under it.
    """
    temporary = _write_temporary(path, content, mode)
    try:
        os.link(temporary, path)  # unlike rename, never replaces
        fsync_folder(path.parent)
    finally:
        temporary.unlink()


def replace_file(path: Path, content: bytes, mode: int = 0o640) -> None:
    """Write a file and put it in the place of path at once, durably: a reader sees the old or the new content."""
    temporary = _write_temporary(path, content, mode)
    try:
        os.rename(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def _write_temporary(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        fsync_fd(fd)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return temporary
