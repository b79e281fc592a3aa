"""A volume on a file system that is mounted here: files received, put, read, verified, removed.

A file is written under a temporary name in `incoming/`, fsynced, and renamed to its own name, which is used once and
never again (pacs/storage/names.py). Before a volume is written to, its identity file is compared with the one that was
opened, so that a mount that went away is noticed and not written below.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pacs.errors import NotFound, PacsError, VolumeFailed, VolumeMissing
from pacs.storage import durable
from pacs.storage.incoming import Incoming, ReceivedFile
from pacs.storage.kinds import FileStatus, Promise, Room, ToPut
from pacs.storage.reading import LocalFile, read_past_cache, unreadable
from pacs.storage.together import put_together
from pacs.storage.volume import IDENTITY_FILE, VolumeIdentity, read_identity
from pacs.storage.walking import walk_in_order

#: Room that is left free on a volume [bytes].
RESERVED_BYTES = 64 << 20

LOCAL = Promise(
    "local", may_receive=True, fsyncs=True, renames=True, lists_all=True, knows_room=True,
    far_side="O_DIRECT, or after dropping the file's pages from the cache",
    note="A disk that answers a flush before it has done it can lose the last seconds in a loss of power.",
)  # fmt: skip


class LocalVolume:
    """An open volume: a folder with an identity file, on a file system that is mounted here."""

    def __init__(self, root: Path, role: str, promise: Promise = LOCAL) -> None:
        """Open the volume at root. Raise VolumeError if there is none, or it is not for this role."""
        self.root, self.promise = root, promise
        #: What of its free room is not its own [bytes]: the database's, where that shares its file system.
        self.kept_bytes = 0
        self.identity: VolumeIdentity = read_identity(root)
        if role not in self.identity.roles:
            raise VolumeMissing(f"The volume at {root} is for {', '.join(self.identity.roles)}, not for {role}.")
        self._identity_file = _file_id(root / IDENTITY_FILE)
        self._durable_folders: set[Path] = {root}
        self._lock = threading.Lock()
        self._has_incoming = False  # made before the first write: to open a volume leaves it as it is

    @property
    def volume_id(self) -> str:
        """The id in the volume's identity file."""
        return self.identity.volume_id

    @property
    def location(self) -> str:
        """Its folder."""
        return str(self.root)

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

    def require_writable(self) -> None:
        """The same, and raise VolumeFailed if its file system is mounted read-only, as after an error of its disk."""
        self.require_present()
        try:
            flags = os.statvfs(self.root).f_flag
        except OSError as error:
            raise durable.as_volume_error(error, self.root) from error
        if flags & os.ST_RDONLY:
            raise VolumeFailed(
                f"The volume at {self.root} can only be read: its file system is mounted read-only. "
                "Look at its disk and at the kernel's log."
            )
        if not self._has_incoming:
            try:
                self._make_durable_folder(self.root / "incoming")
            except OSError as error:
                raise durable.as_volume_error(error, self.root) from error
            self._has_incoming = True

    def room(self) -> Room:
        """How much room its file system has. Raise VolumeFailed if it does not answer."""
        try:
            usage = shutil.disk_usage(self.root)
        except OSError as error:
            raise durable.as_volume_error(error, self.root) from error
        return Room(usage.total, usage.used, max(0, usage.free - self.kept_bytes))

    def begin(self) -> Incoming:
        """Begin to receive a file of whatever size. Raise VolumeMissing, VolumeFull or VolumeFailed."""
        self.require_writable()
        return Incoming(self.root, self._identity_file[0], self.require_room)

    def receive(self, chunks: Iterable[bytes | memoryview], size_bytes: int) -> ReceivedFile:
        """Write chunks to a new temporary file and fsync it. size_bytes, the sum of them, is asked for beforehand.

        Raise VolumeFull or VolumeFailed; then nothing is left behind.
        """
        return self.write(chunks, size_bytes).finish()

    def write(self, chunks: Iterable[bytes | memoryview], size_bytes: int, is_room_known: bool = False) -> Incoming:
        """Write chunks to a new temporary file, which is yet to be finished. Raise as `receive` does.

        is_room_known: the caller has just asked for the room of many files, and whether they can be written.
        """
        if is_room_known:
            incoming = Incoming(self.root, self._identity_file[0], lambda: None)
        else:
            self.require_room(size_bytes)
            incoming = self.begin()
        try:
            for chunk in chunks:
                incoming.write(memoryview(chunk))
        except BaseException:  # of the chunks' source, too
            incoming.abandon()
            raise
        return incoming

    def require_room(self, size_bytes: int = 0) -> None:
        """Raise VolumeFull unless size_bytes more fit, with the reserve left."""
        free_bytes = self.room().free_bytes
        if free_bytes is not None and free_bytes < size_bytes + RESERVED_BYTES:
            raise durable.as_volume_error(OSError(errno.ENOSPC, ""), self.root)

    def put(self, path: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Write a file, whole and durable under its own name or not at all; return the SHA-256 of what was given."""
        received = self.receive(chunks, size_bytes)
        self.place(received, path)
        return received.sha256

    def put_many(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        """The same for many files, made durable together; beside each its SHA-256, or why it is not there."""
        return put_together(self, files)

    def place(self, received: ReceivedFile, path: str) -> None:
        """Give a received file its own name, durably."""
        folder, _, name = path.rpartition("/")
        (error,) = self.place_in(folder, [(received, name)])
        if error is not None:
            raise error

    def place_in(self, folder: str, named: Sequence[tuple[ReceivedFile, str]]) -> list[PacsError | None]:
        """Give received files their names in one folder, durably. Beside each why it is not there."""
        target = self.root / folder
        try:
            self._make_durable_folder(target)
        except (OSError, PacsError) as error:
            for received, _name in named:
                self.discard(received)
            return [error if isinstance(error, PacsError) else durable.as_volume_error(error, self.root)] * len(named)
        outcomes = [self._give_name(received, f"{target}/{name}") for received, name in named]
        try:
            durable.fsync_folder(target)
        except OSError as error:
            for _received, name in named:
                with contextlib.suppress(OSError):
                    (target / name).unlink()
            return [outcome or durable.as_volume_error(error, self.root) for outcome in outcomes]
        return outcomes

    def place_unsynced(self, received: ReceivedFile, path: str) -> PacsError | None:
        """Give a received file its name; return why it is not there. The caller syncs the file system afterwards, and
        with it the folders that are made here."""
        target = self.root / path
        try:
            target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            self.discard(received)
            return durable.as_volume_error(error, self.root)
        return self._give_name(received, str(target))

    def _give_name(self, received: ReceivedFile, target: str) -> PacsError | None:
        try:
            os.rename(received.temporary, target)
            return None
        except OSError as error:
            self.discard(received)
            return durable.as_volume_error(error, self.root)

    def discard(self, received: ReceivedFile) -> None:
        """Remove a received file that is not to be placed."""
        with contextlib.suppress(OSError):
            os.unlink(received.temporary)  # noqa: PTH108 (a text: see ReceivedFile)

    def path_of(self, path: str) -> Path:
        """Where the file is. Raise NotFound if it is not there."""
        found = self.root / path
        if not found.is_file():
            self.require_present()  # else it is the volume that is missing, and no file
            raise NotFound(f"A file is missing from the volume at {self.root}. Run `pacs reconcile run`.")
        return found

    def has(self, path: str) -> bool:
        """Whether there is a file at path."""
        return (self.root / path).is_file()

    def size_of(self, path: str) -> int:
        """The file's size [bytes]. Raise NotFound."""
        return self.path_of(path).stat().st_size

    def open(self, path: str) -> LocalFile:
        """Open a file for reading. Raise NotFound, VolumeMissing or VolumeFailed."""
        return LocalFile(self.root / path, self.root, self.require_present)

    def read_start(self, path: str, size_bytes: int) -> bytes:
        """The file's first bytes, at most size_bytes. Raise NotFound or VolumeFailed."""
        found = self.path_of(path)
        try:
            with open(found, "rb") as file:
                return file.read(size_bytes)
        except OSError as error:
            raise unreadable(self.root, error) from error

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes in chunks, from an offset [bytes]. Raise NotFound or VolumeFailed."""
        file = self.open(path)
        try:
            yield from file.chunks(offset)
        finally:
            file.close()

    def digest_on_disk(self, path: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """SHA-256 of the file as the disk has it: read past the page cache, so that what was written is proven."""
        digest = hashlib.sha256()
        for chunk in self.read_on_disk(path):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
        return digest.digest()

    def read_on_disk(self, path: str) -> Iterator[memoryview]:
        """The file's bytes past the page cache; each piece is overwritten by the next. Raise NotFound."""
        try:
            yield from read_past_cache(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            self.require_present()  # else it is the volume that is missing, and no file
            raise NotFound(f"A file is missing from the volume at {self.root}. Run `pacs reconcile run`.") from None
        except OSError as error:
            raise unreadable(self.root, error) from error

    def remove(self, path: str) -> None:
        """Remove a file whose row is gone or was never made; one that is gone already is no fault."""
        self.require_present()
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise durable.as_volume_error(error, self.root) from error

    def quarantine(self, path: str) -> str:
        """Move a file that is nobody's to `quarantine/`, where a person can look at it; return its new path."""
        self.require_writable()
        folder = self.root / "quarantine"
        target = folder / f"{secrets.token_hex(4)}-{Path(path).name}"
        try:
            self._make_durable_folder(folder)
            os.rename(self.root / path, target)
            durable.fsync_folder(folder)
        except OSError as error:
            raise durable.as_volume_error(error, self.root) from error
        return str(target.relative_to(self.root))

    def names(self, folder: str) -> list[str]:
        """The names of what is directly in a folder, in no order; none if it is not there."""
        try:
            return [path.name for path in (self.root / folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            self.require_present()
            return []
        except OSError as error:
            raise unreadable(self.root, error) from error

    def walk(self, below: str = "") -> Iterator[FileStatus]:
        """Every file below a folder, in the order of their paths' bytes; below `incoming/`, then `objects/` if none is
        named."""
        try:
            for top in (below,) if below else ("incoming", "objects"):
                yield from walk_in_order(self.root, top)
            self.require_present()  # else what was listed is not all
        except OSError as error:
            raise unreadable(self.root, error) from error

    def read_small(self, path: str) -> bytes:
        """A small file beside the objects. Raise NotFound or VolumeFailed."""
        found = self.path_of(path)
        try:
            return found.read_bytes()
        except OSError as error:
            raise unreadable(self.root, error) from error

    def replace_small(self, path: str, content: bytes) -> None:
        """Write a small file beside the objects durably; a reader sees the old content or the new."""
        self.require_writable()
        try:
            self._make_durable_folder((self.root / path).parent)
            durable.replace_file(self.root / path, content)
        except OSError as error:
            raise durable.as_volume_error(error, self.root) from error

    def close(self) -> None:
        """Nothing is held open."""

    def _make_durable_folder(self, folder: Path) -> None:
        # A folder that another association has just made may not be fsynced in its parent yet. So existence is not
        # enough: a folder counts once this process has fsynced its whole way down from the root.
        with self._lock:
            if folder in self._durable_folders and folder.is_dir():  # somebody may have tidied up
                return
        self.require_present()  # else the folders would be made below the mount point
        missing = [folder, *(parent for parent in folder.parents if parent.is_relative_to(self.root))]
        for path in reversed(missing):
            if path == self.root or (path in self._durable_folders and path.is_dir()):
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
