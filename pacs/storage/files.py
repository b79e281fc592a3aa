"""The files of a volume: received, placed, read, verified, removed. The only opener of archive files.

A file is written under a temporary name in `incoming/`, fsynced, and renamed to its own name, which is used once and
never again: `objects/<tenant>/<yyyy>/<mm>/<dd>/<study key>/<sha256>-<random>.dcm`. Before a volume is written to, its
identity file is compared with the one that was opened, so that a mount that went away is noticed and not written below.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from pacs.errors import NotFound, VolumeFailed, VolumeMissing
from pacs.storage import durable
from pacs.storage.incoming import Incoming, ReceivedFile
from pacs.storage.volume import IDENTITY_FILE, VolumeIdentity, read_identity

CHUNK_SIZE_BYTES = 1 << 20
#: Room that receiving leaves on a volume [bytes]: on one that is shared with the database it is the database's.
RESERVED_BYTES = 64 << 20

_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})-[0-9a-f]{12}\.dcm", re.ASCII)


def object_path(tenant_id: int, arrived: datetime, study_key: str, sha256: bytes) -> str:
    """A new path for an object, relative to its volume's root. No two calls give the same."""
    name = f"{sha256.hex()}-{secrets.token_hex(6)}.dcm"
    return f"objects/{tenant_id}/{arrived:%Y/%m/%d}/{study_key}/{name}"


def sha256_in_name(path: str) -> bytes | None:
    """The digest that an object's file name states; None if it is not the name of an object."""
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return bytes.fromhex(match["sha256"]) if match else None


class Volume:
    """An open volume: a folder with an identity file, on a local file system."""

    def __init__(self, root: Path, role: str) -> None:
        """Open the volume at root. Raise VolumeError if there is none, or it is not for this role."""
        self.root = root
        self.identity: VolumeIdentity = read_identity(root)
        if role not in self.identity.roles:
            raise VolumeMissing(f"The volume at {root} is for {', '.join(self.identity.roles)}, not for {role}.")
        self._identity_file = _file_id(root / IDENTITY_FILE)
        self._durable_folders: set[Path] = {root}
        self._lock = threading.Lock()
        self._make_durable_folder(root / "incoming")

    @property
    def volume_id(self) -> str:
        """The id in the volume's identity file."""
        return self.identity.volume_id

    def require_present(self) -> None:
        """Raise VolumeMissing unless the volume that was opened is still mounted at its root."""
        try:
            found = _file_id(self.root / IDENTITY_FILE)
        except OSError:
            raise VolumeMissing(f"The volume at {self.root} is gone. Is its disk attached and mounted?") from None
        if found != self._identity_file:
            if read_identity(self.root) != self.identity:
                raise VolumeMissing(f"Another volume came to {self.root}. Attach the disk of {self.volume_id}.")
            self._identity_file = found

    def free_bytes(self) -> int:
        """Bytes that can still be written by the service. Raise VolumeFailed if the file system does not answer."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError as error:
            raise durable.as_volume_error(error, self.root) from error

    def used_percent(self) -> float:
        """How full the volume is, of what the service may use."""
        usage = shutil.disk_usage(self.root)
        return 100 * usage.used / (usage.used + usage.free)

    def used_bytes(self) -> int:
        """Bytes that are taken on the volume's file system."""
        return shutil.disk_usage(self.root).used

    def begin(self) -> Incoming:
        """Begin to receive a file of whatever size. Raise VolumeMissing, VolumeFull or VolumeFailed."""
        self.require_present()
        return Incoming(self.root, self.require_room)

    def receive(self, chunks: Iterable[bytes | memoryview], size_bytes: int) -> ReceivedFile:
        """Write chunks to a new temporary file and fsync it. size_bytes, the sum of them, is asked for beforehand.

        Raise VolumeFull or VolumeFailed; then nothing is left behind.
        """
        self.require_room(size_bytes)
        incoming = self.begin()
        try:
            for chunk in chunks:
                incoming.write(memoryview(chunk))
            return incoming.finish()
        except BaseException:  # of the chunks' source, too
            incoming.abandon()
            raise

    def require_room(self, size_bytes: int = 0) -> None:
        """Raise VolumeFull unless size_bytes more fit, with the reserve left."""
        if self.free_bytes() < size_bytes + RESERVED_BYTES:
            raise durable.as_volume_error(OSError(errno.ENOSPC, ""), self.root)

    def place(self, received: ReceivedFile, path: str) -> None:
        """Give a received file its own name, durably."""
        target = self.root / path
        try:
            self._make_durable_folder(target.parent)
            os.rename(received.temporary, target)
            durable.fsync_folder(target.parent)
        except OSError as error:
            for leftover in (received.temporary, target):
                with contextlib.suppress(OSError):
                    leftover.unlink()
            raise durable.as_volume_error(error, self.root) from error

    def discard(self, received: ReceivedFile) -> None:
        """Remove a received file that is not to be placed."""
        with contextlib.suppress(OSError):
            received.temporary.unlink()

    def fresh_path(self, path: str) -> str:
        """A path like that of another copy of the object, that was never used."""
        folder, _, name = path.rpartition("/")
        return f"{folder}/{name.partition('-')[0]}-{secrets.token_hex(6)}.dcm"

    def path_of(self, path: str) -> Path:
        """Where the file is, for a reader that streams it. Raise NotFound if it is not there."""
        found = self.root / path
        if not found.is_file():
            raise NotFound(f"A file is missing from the volume at {self.root}. Run `pacs reconcile run`.")
        return found

    def has(self, path: str) -> bool:
        """Whether there is a file at path."""
        return (self.root / path).is_file()

    def read_start(self, path: str, size_bytes: int) -> bytes:
        """The file's first bytes, at most size_bytes. Raise NotFound or VolumeFailed."""
        found = self.path_of(path)
        try:
            with open(found, "rb") as file:
                return file.read(size_bytes)
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes in chunks, from an offset [bytes]. Raise NotFound or VolumeFailed."""
        found = self.path_of(path)
        try:
            with open(found, "rb", buffering=0) as file:
                file.seek(offset)
                while chunk := file.read(CHUNK_SIZE_BYTES):
                    yield chunk
        except OSError as error:
            raise self._unreadable(error) from error

    def digest_on_disk(self, path: str) -> bytes:
        """SHA-256 of the file as the disk has it: read past the page cache, so that what was written is proven."""
        digest, found = hashlib.sha256(), self.path_of(path)
        try:
            for chunk in _read_past_cache(found):
                digest.update(chunk)
        except OSError as error:
            raise self._unreadable(error) from error
        return digest.digest()

    def remove(self, path: str) -> None:
        """Remove a file whose row is gone or was never made; one that is gone already is no fault."""
        self.require_present()
        with contextlib.suppress(FileNotFoundError):
            (self.root / path).unlink()

    def quarantine(self, path: str) -> str:
        """Move a file that is nobody's to `quarantine/`, where a person can look at it; return its new path."""
        self.require_present()
        folder = self.root / "quarantine"
        self._make_durable_folder(folder)
        target = folder / f"{secrets.token_hex(4)}-{Path(path).name}"
        os.rename(self.root / path, target)
        durable.fsync_folder(folder)
        return str(target.relative_to(self.root))

    def walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Path and status of every file below `objects/` and `incoming/`."""
        for top in ("objects", "incoming"):
            for folder, _folders, names in os.walk(self.root / top):
                for name in names:
                    path = Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):  # moved or removed meanwhile
                        yield str(path.relative_to(self.root)), path.stat()

    def _unreadable(self, error: OSError) -> VolumeFailed:
        return VolumeFailed(f"A file on the volume at {self.root} cannot be read: {error.strerror}. Look at its disk.")

    def _make_durable_folder(self, folder: Path) -> None:
        # A folder that another association has just made may not be fsynced in its parent yet. So existence is not
        # enough: a folder counts once this process has fsynced its whole way down from the root.
        with self._lock:
            if folder in self._durable_folders and folder.is_dir():  # somebody may have tidied up
                return
        missing = [folder, *(parent for parent in folder.parents if parent.is_relative_to(self.root))]
        for path in reversed(missing):
            if path == self.root:
                continue
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o750)
            durable.fsync_folder(path.parent)
        with self._lock:
            if len(self._durable_folders) > 10_000:
                self._durable_folders = {self.root}
            self._durable_folders.update(missing)


def _file_id(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_ctime_ns  # inode numbers are used again


def _read_past_cache(path: Path) -> Iterator[memoryview | bytes]:
    """The file's bytes from the disk itself: O_DIRECT, or where the file system has none, after dropping its pages."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = mmap.mmap(-1, CHUNK_SIZE_BYTES)  # page-aligned, as O_DIRECT wants it
    try:
        while size := os.readv(fd, [buffer]):
            yield buffer[:size]
    finally:
        buffer.close()
        os.close(fd)
