"""A volume on an SFTP server. It holds copies; nothing is received on it.

A file is written under a temporary name in `incoming/`, synced where the server can (OpenSSH), and renamed. A copy
counts after it was read back. `volume.json` is compared before anything is written or removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko
from paramiko.sftp import CMD_EXTENDED

from pacs import clock
from pacs.errors import ForeignVolume, NotFound, PacsError, UsageError, VolumeFailed, VolumeFull, VolumeMissing
from pacs.storage.files import RESERVED_BYTES
from pacs.storage.kinds import FileStatus, Room, ToPut
from pacs.storage.promises import SFTP
from pacs.storage.reading import PieceFile
from pacs.storage.sftp_client import Client
from pacs.storage.together import put_each
from pacs.storage.volume import IDENTITY_FILE, VolumeIdentity, identity_content, new_identity, parse_identity

log = logging.getLogger(__name__)

#: How long it is believed that the place is still this volume's, between two writes [s].
_PRESENT_FOR_S = 10.0
#: How long its room is believed [s].
_ROOM_FOR_S = 10.0
_PUTS_AT_ONCE = 4
_CHUNK_BYTES = 1 << 20
#: What one request of SFTP gives [bytes]; longer files are asked for ahead.
_REQUEST_BYTES = 32 << 10


class SftpVolume:
    """An open volume on an SFTP server."""

    promise = SFTP

    def __init__(self, location: str, role: str, options: Mapping[str, Any], credentials: Path) -> None:
        """Open the volume at sftp://user@host/path. Raise VolumeMissing if it is not there or not for this role."""
        self._location, self._client = location, Client(location, options, credentials)
        self._root = PurePosixPath(self._client.server.path)
        self._lock = threading.Lock()
        self._present_until_s, self._folders = 0.0, set[PurePosixPath]()
        self._room: tuple[Room, float] | None = None
        try:
            self.identity: VolumeIdentity = self._read_identity()
            if role not in self.identity.roles:
                raise VolumeMissing(
                    f"The volume at {location} is for {', '.join(self.identity.roles)}, not for {role}."
                )
        except BaseException:
            self._client.close()
            raise

    @property
    def volume_id(self) -> str:
        """The id in the volume's identity file."""
        return self.identity.volume_id

    @property
    def location(self) -> str:
        """sftp://user@host/path"""
        return self._location

    def require_present(self) -> None:
        """Raise VolumeMissing or ForeignVolume unless the identity file is the one that was opened, a moment ago."""
        with self._lock:
            if clock.monotonic_s() < self._present_until_s:
                return
            found = self._read_identity()
            if found != self.identity:
                kind = ForeignVolume if found.appliance_id != self.identity.appliance_id else VolumeMissing
                raise kind(f"Another volume came to {self.location}: {found.volume_id}. Nothing was written.")
            self._folders.clear()
            self._present_until_s = clock.monotonic_s() + _PRESENT_FOR_S

    def require_writable(self) -> None:
        """The same, and raise VolumeFailed if nothing can be written."""
        self.require_present()
        with self._client.session() as session:
            self._make_folder(session, self._root / "incoming")

    def room(self) -> Room:
        """How much room the server says there is; no bound if it does not say."""
        if self._room is None or clock.monotonic_s() > self._room[1]:
            with self._client.session() as session:
                self._room = (_room_at(session, str(self._root)), clock.monotonic_s() + _ROOM_FOR_S)
        return self._room[0]

    def require_room(self, size_bytes: int = 0) -> None:
        """Raise VolumeFull unless size_bytes more fit, with the reserve left."""
        free_bytes = self.room().free_bytes
        if free_bytes is not None and free_bytes < size_bytes + RESERVED_BYTES:
            raise VolumeFull(f"No room left at {self.location}. Enlarge its disk.")

    def put(self, path: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Write a file, whole under its own name or not at all; return the SHA-256 of what was given."""
        self.require_present()
        self.require_room(size_bytes)
        digest = hashlib.sha256()
        target, temporary = self._root / path, self._root / "incoming" / f"{secrets.token_hex(8)}.part"
        with self._client.session() as session:
            self._make_folder(session, temporary.parent)
            try:
                with session.open(str(temporary), "wx") as file:
                    file.set_pipelined(True)
                    for chunk in chunks:
                        digest.update(chunk)
                        file.write(bytes(chunk))
                    file.flush()
                    # What the server says of each write is passed over while they are under way; this comes after all.
                    if file.stat().st_size != size_bytes:
                        raise VolumeFailed(f"{self.location} did not take all of a file. Is its disk full?")
                    _sync(session, file)
                self._make_folder(session, target.parent)
                _rename(session, temporary, target)
            except BaseException:
                with contextlib.suppress(OSError, paramiko.SSHException, EOFError):
                    session.remove(str(temporary))
                raise
        return digest.digest()

    def put_many(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        """The same for many files, some at once; beside each its SHA-256, or why it is not there."""
        return put_each(self, files, _PUTS_AT_ONCE)

    def open(self, path: str) -> PieceFile:
        """Open a file for reading. Raise NotFound."""
        return PieceFile(self, path, _CHUNK_BYTES)

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """A file's bytes in chunks, from an offset [bytes]. Raise NotFound."""
        with self._reading(path) as (file, size_bytes):
            if offset:
                file.seek(offset)
            elif size_bytes > _REQUEST_BYTES:
                file.prefetch(size_bytes)
            while chunk := file.read(min(_CHUNK_BYTES, max(1, size_bytes - offset))):
                yield chunk
                offset += len(chunk)
                if offset >= size_bytes:
                    return

    def read_piece(self, path: str, offset: int, size_bytes: int) -> tuple[bytes, int]:
        """Bytes of a file from an offset, less than asked for only at its end, and its size. Raise NotFound."""
        with self._reading(path) as (file, whole_bytes):
            wanted = max(0, min(size_bytes, whole_bytes - offset))
            pieces = [
                (at, min(_REQUEST_BYTES, offset + wanted - at)) for at in range(offset, offset + wanted, _REQUEST_BYTES)
            ]
            return b"".join(file.readv(pieces)) if pieces else b"", whole_bytes

    def read_start(self, path: str, size_bytes: int) -> bytes:
        """A file's first bytes, at most size_bytes. Raise NotFound."""
        return self.read_piece(path, 0, size_bytes)[0]

    def size_of(self, path: str) -> int:
        """A file's size [bytes]. Raise NotFound."""
        with self._found(), self._client.session() as session:
            return session.stat(str(self._root / path)).st_size or 0

    def has(self, path: str) -> bool:
        """Whether there is a file at path."""
        try:
            self.size_of(path)
        except NotFound:
            return False
        return True

    def read_on_disk(self, path: str) -> Iterator[bytes]:
        """A file's bytes as the server gives them back. Raise NotFound."""
        return self.read(path)

    def digest_on_disk(self, path: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """SHA-256 of a file as the server gives it back, all of it. Raise NotFound."""
        digest = hashlib.sha256()
        for chunk in self.read(path):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
        return digest.digest()

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is no fault."""
        self.require_present()
        with contextlib.suppress(NotFound), self._client.session() as session:
            session.remove(str(self._root / path))

    def quarantine(self, path: str) -> str:
        """Move a file that is nobody's to `quarantine/`; return its new path."""
        self.require_present()
        target = f"quarantine/{secrets.token_hex(4)}-{Path(path).name}"
        with self._client.session() as session:
            self._make_folder(session, self._root / "quarantine")
            _rename(session, self._root / path, self._root / target)
        return target

    def names(self, folder: str) -> list[str]:
        """The names of what is directly in a folder, in no order; none if it is not there."""
        try:
            with self._found(), self._client.session() as session:
                return session.listdir(str(self._root / folder))
        except NotFound:
            return []

    def walk(self, below: str = "") -> Iterator[FileStatus]:
        """Every file below a folder, in the order of their paths' bytes; below `incoming/`, then `objects/` if none is
        named."""
        for top in (below,) if below else ("incoming", "objects"):
            yield from self._walk(top)
        self.require_present()  # else what was listed is not all

    def _walk(self, folder: str) -> Iterator[FileStatus]:
        try:
            with self._client.session() as session:
                listed = session.listdir_attr(str(self._root / folder))
        except NotFound:
            return
        found = sorted(
            (each.filename.encode("utf-8", "surrogateescape") + (b"/" if is_folder else b""), is_folder, each)
            for each in listed
            for is_folder in (stat.S_ISDIR(each.st_mode or 0),)
        )
        for _key, is_folder, each in found:
            path = f"{folder}/{each.filename}"
            if is_folder:
                yield from self._walk(path)
            else:
                modified_at = datetime.fromtimestamp(each.st_mtime or 0, UTC)
                yield FileStatus(path, each.st_size or 0, modified_at, stat.S_ISREG(each.st_mode or stat.S_IFREG))

    def read_small(self, path: str) -> bytes:
        """A small file beside the objects. Raise NotFound."""
        return b"".join(self.read(path))

    def replace_small(self, path: str, content: bytes) -> None:
        """Write a small file; a reader sees the old content or the new."""
        self.put(path, [content], len(content))
        if self.read_small(path) != content:
            raise VolumeFailed(f"{self.location} did not keep what was written. Look at the server.")

    def close(self) -> None:
        """Let go of the connection; once more does nothing."""
        self._client.close()

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[tuple[paramiko.SFTPFile, int]]:
        with self._found(), self._client.session() as session, session.open(str(self._root / path), "rb") as file:
            yield file, file.stat().st_size or 0

    @contextlib.contextmanager
    def _found(self) -> Iterator[None]:
        """A file that is not there is one thing, a place that was emptied another."""
        try:
            yield
        except NotFound:
            self._read_identity()
            raise

    def _read_identity(self) -> VolumeIdentity:
        try:
            with self._client.session() as session, session.open(str(self._root / IDENTITY_FILE), "rb") as file:
                content = file.read()
        except NotFound:
            raise VolumeMissing(
                f"There is no volume at {self._location}: {IDENTITY_FILE} is missing. Is its disk mounted there?"
            ) from None
        return parse_identity(content, self._location)

    def _make_folder(self, session: paramiko.SFTPClient, folder: PurePosixPath) -> None:
        if folder in self._folders or folder == self._root:
            return
        self._make_folder(session, folder.parent)
        try:
            session.mkdir(str(folder), 0o750)
        except OSError:
            if not stat.S_ISDIR(session.stat(str(folder)).st_mode or 0):
                raise
        self._folders.add(folder)


def identity_at(location: str, options: Mapping[str, Any], credentials: Path) -> VolumeIdentity | None:
    """The identity of the volume there; None if the folder is empty or yet to be made. Raise UsageError if neither."""
    with contextlib.closing(Client(location, options, credentials)) as client:
        root = client.server.path
        try:
            with client.session() as session:
                names = session.listdir(root)
                if IDENTITY_FILE in names:
                    with session.open(f"{root}/{IDENTITY_FILE}", "rb") as file:
                        return parse_identity(file.read(), location)
        except NotFound:
            return None
    others = sorted(set(names) - {"lost+found"})
    if others:
        raise UsageError(f"{location} is no volume and not empty: it holds {others[0]}. Take an empty folder.")
    return None


def make_at(
    location: str, options: Mapping[str, Any], credentials: Path, role: str, appliance_id: str
) -> VolumeIdentity:
    """Make an empty folder, or one that is yet to be made, a volume."""
    identity = new_identity((role,), appliance_id)
    with contextlib.closing(Client(location, options, credentials)) as client, client.session() as session:
        root = client.server.path
        with contextlib.suppress(OSError):
            session.mkdir(root, 0o750)
        with session.open(f"{root}/{IDENTITY_FILE}", "wx") as file:
            file.write(identity_content(identity))
    return identity


def unmake_at(location: str, options: Mapping[str, Any], credentials: Path) -> None:
    """Leave the folder of a volume that was made a moment ago empty."""
    with contextlib.closing(Client(location, options, credentials)) as client, client.session() as session:
        root = client.server.path
        with contextlib.suppress(OSError):
            session.rmdir(f"{root}/incoming")
        with contextlib.suppress(OSError):
            session.remove(f"{root}/{IDENTITY_FILE}")


def _sync(session: paramiko.SFTPClient, file: paramiko.SFTPFile) -> None:
    """Have the server sync a file, where it knows how. paramiko has no function for this extension of OpenSSH's."""
    with contextlib.suppress(OSError):
        session._request(CMD_EXTENDED, "fsync@openssh.com", file.handle)  # type: ignore[attr-defined]


def _rename(session: paramiko.SFTPClient, old: PurePosixPath, new: PurePosixPath) -> None:
    try:
        session.posix_rename(str(old), str(new))
    except FileNotFoundError:
        raise
    except OSError as error:
        if "unsupported" not in str(error).lower():
            raise
        with contextlib.suppress(FileNotFoundError):  # a server that never replaces
            session.remove(str(new))
        session.rename(str(old), str(new))


def _room_at(session: paramiko.SFTPClient, root: str) -> Room:
    try:
        _kind, answer = session._request(CMD_EXTENDED, "statvfs@openssh.com", root)  # type: ignore[attr-defined]
    except FileNotFoundError:
        raise
    except OSError:  # it does not know this
        return Room(None, 0, None)
    _block, unit, blocks, free, available = (answer.get_int64() for _field in range(5))
    return Room(blocks * unit, (blocks - free) * unit, available * unit)
