"""A volume whose files are sealed: a backup repository, over a volume of whatever kind.

    repository.json     whose keys open it; in clear
    keyring.json.bin    the keys, sealed by the recovery sheet (pacs/backup/keys.py)
    objects/ab/cd/<sha256>.bin   an object, in the format of rclone's crypt remote (crypt.py)

Sizes and digests are those of what is sealed. A file that was changed does not open: it raises crypt.Unreadable, which
says of the file that it is bad, and nothing of its volume. Small files beside the objects are as they are given.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from pacs import __version__
from pacs.errors import BackupError, DataTooNew, NotFound, PacsError, PathTaken, WrongKey
from pacs.storage import crypt
from pacs.storage.keyring import Keyring
from pacs.storage.kinds import FileStatus, OpenFile, Promise, Room, ToPut, Volume
from pacs.storage.volume import VolumeIdentity

log = logging.getLogger(__name__)

ABOUT_FILE = "repository.json"
FORMAT = 1
#: How many blocks are read at once, where a file is read piece by piece: 1 MiB.
_BLOCKS_AT_ONCE = 16


@dataclass(frozen=True)
class About:
    """What repository.json says."""

    appliance_id: str
    volume_id: str
    #: Which keys seal its contents.
    ring_id: str
    format: int = FORMAT
    version: str = __version__

    def content(self) -> bytes:
        """What the file holds."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


def read_about(volume: Volume) -> About:
    """What repository.json on a volume says. Raise NotFound, BackupError if it is damaged, or DataTooNew."""
    try:
        found = json.loads(volume.read_small(ABOUT_FILE))
        if found["format"] > FORMAT:
            raise DataTooNew.of_format(f"The repository at {volume.location}", found, FORMAT)
        appliance_id, volume_id, ring_id = (str(found[name]) for name in ("appliance_id", "volume_id", "ring_id"))
        return About(appliance_id, volume_id, ring_id, found["format"], str(found.get("version", "")))
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(
            f"{ABOUT_FILE} at {volume.location} is damaged. `pacs backup keys rotate` writes it anew."
        ) from error


class SealedVolume:
    """An open repository."""

    def __init__(self, inner: Volume, keyring: Keyring) -> None:
        """Over an open volume. Raise WrongKey, before anything is touched, unless its contents are of this keyring."""
        self.inner, self.keyring = inner, keyring
        try:
            about = read_about(inner)
        except NotFound:
            raise BackupError(
                f"There is no repository at {inner.location}: {ABOUT_FILE} is missing. Is it the right place?"
            ) from None
        if about.ring_id != keyring.ring_id:
            raise WrongKey(
                f"The repository at {inner.location} is sealed with other keys than this appliance's. Nothing was "
                "touched. Give it a place of its own, or restore from it with its recovery sheet."
            )
        self.about, self._key = about, keyring.objects_key

    @property
    def identity(self) -> VolumeIdentity:
        """What its identity file said when it was opened."""
        return self.inner.identity

    @property
    def volume_id(self) -> str:
        """The id in its identity file."""
        return self.inner.volume_id

    @property
    def promise(self) -> Promise:
        """What its kind keeps."""
        return self.inner.promise

    @property
    def location(self) -> str:
        """Where it is, for a person."""
        return self.inner.location

    def require_present(self) -> None:
        """Raise VolumeMissing or ForeignVolume unless the volume that was opened is still there."""
        self.inner.require_present()

    def require_writable(self) -> None:
        """The same, and raise VolumeFailed if it can only be read."""
        self.inner.require_writable()

    def room(self) -> Room:
        """How much room it has."""
        return self.inner.room()

    def require_room(self, size_bytes: int = 0) -> None:
        """Raise VolumeFull unless size_bytes more fit, with the reserve left."""
        self.inner.require_room(crypt.sealed_size(size_bytes))

    def put(self, path: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Seal and write a file; return the SHA-256 of what was given."""
        given = _Digested(chunks)
        try:
            self.inner.put(path, crypt.seal(given, self._key), crypt.sealed_size(size_bytes))
        except PathTaken:
            self._require_there(path, given.digest())
        return given.digest()

    def put_many(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        """The same for many files; beside each the SHA-256 of what was given, or why it is not there."""
        given = [_Digested(file.chunks) for file in files]
        sealed = [
            ToPut(file.path, crypt.seal(each, self._key), crypt.sealed_size(file.size_bytes))
            for file, each in zip(files, given, strict=True)
        ]
        outcomes: list[bytes | PacsError] = []
        for file, each, outcome in zip(files, given, self.inner.put_many(sealed), strict=True):
            if isinstance(outcome, PathTaken):
                try:
                    self._require_there(file.path, each.digest())
                    outcome = each.digest()
                except PacsError as error:
                    outcome = error
            outcomes.append(outcome if isinstance(outcome, PacsError) else each.digest())
        return outcomes

    def _require_there(self, path: str, sha256: bytes) -> None:
        """Raise PathTaken unless what has the path already is the same: a put whose answer was lost, or a kill."""
        try:
            if self.digest_on_disk(path) == sha256:
                return
        except (crypt.Unreadable, NotFound):
            pass
        raise PathTaken(f"A damaged file has the place of another in the repository at {self.location}.")

    def open(self, path: str) -> SealedFile:
        """Open a file for reading. Raise NotFound."""
        return SealedFile(self.inner.open(path), self._key)

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """A file's bytes in chunks, from an offset [bytes]. Raise NotFound, or Unreadable if it was changed."""
        if offset == 0:
            yield from crypt.unseal(self.inner.read(path), self._key)
            return
        file = self.open(path)
        try:
            while offset < file.size_bytes:
                piece = bytearray(min(crypt.BLOCK_BYTES * _BLOCKS_AT_ONCE, file.size_bytes - offset))
                count = file.read_into(memoryview(piece), offset)
                yield bytes(piece[:count])
                offset += count
        finally:
            file.close()

    def read_start(self, path: str, size_bytes: int) -> bytes:
        """A file's first bytes, at most size_bytes. Raise NotFound."""
        blocks = -(-size_bytes // crypt.BLOCK_BYTES)
        sealed = self.inner.read_start(path, crypt.block_offset(blocks))
        return b"".join(crypt.unseal([sealed], self._key))[:size_bytes]

    def size_of(self, path: str) -> int:
        """A file's size [bytes]. Raise NotFound."""
        return crypt.plain_size(self.inner.size_of(path))

    def has(self, path: str) -> bool:
        """Whether there is a file at path."""
        return self.inner.has(path)

    def read_on_disk(self, path: str) -> Iterator[bytes]:
        """A file's bytes as the far side has them. Raise NotFound, or Unreadable if it was changed."""
        return crypt.unseal(self.inner.read_on_disk(path), self._key)

    def digest_on_disk(self, path: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """SHA-256 of a file's bytes as the far side has them. Raise NotFound, or Unreadable if it was changed."""
        digest = hashlib.sha256()
        for chunk in self.read_on_disk(path):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
        return digest.digest()

    def remove(self, path: str) -> None:
        """Remove a file whose row is gone or was never made; one that is gone already is no fault."""
        self.inner.remove(path)

    def quarantine(self, path: str) -> str:
        """Move a file that is nobody's to `quarantine/`; return its new path."""
        return self.inner.quarantine(path)

    def walk(self, below: str = "") -> Iterator[FileStatus]:
        """Every file below a folder. One whose size no sealed file has counts as empty."""
        for file in self.inner.walk(below):
            try:
                yield replace(file, size_bytes=crypt.plain_size(file.size_bytes))
            except crypt.Unreadable:
                yield replace(file, size_bytes=0)

    def names(self, folder: str) -> list[str]:
        """The names of what is directly in a folder, in no order; none if it is not there."""
        return self.inner.names(folder)

    def read_small(self, path: str) -> bytes:
        """A small file beside the objects, as it was given. Raise NotFound."""
        return self.inner.read_small(path)

    def replace_small(self, path: str, content: bytes) -> None:
        """Write a small file durably. It is not sealed: there must be no patient's data in it."""
        self.inner.replace_small(path, content)

    def read_sealed(self, path: str) -> bytes:
        """A small file that is sealed as the objects are. Raise NotFound, or Unreadable if it was changed."""
        return b"".join(crypt.unseal([self.inner.read_small(path)], self._key))

    def replace_sealed(self, path: str, content: bytes) -> None:
        """Seal a small file and write it durably; a reader sees the old content or the new."""
        self.replace_small(path, b"".join(crypt.seal([content], self._key)))

    def close(self) -> None:
        """Let go of it; once more does nothing."""
        self.inner.close()


class SealedFile:
    """A sealed file that is being read. Close it."""

    def __init__(self, inner: OpenFile, key: bytes) -> None:
        """Over the open file. Raise Unreadable if it is none that was sealed."""
        self._inner = inner
        try:
            self.size_bytes = crypt.plain_size(inner.size_bytes)
            header = memoryview(bytearray(crypt.HEADER_BYTES))
            inner.read_into(header, 0)
            self._opening = crypt.Opening(bytes(header), key)
        except BaseException:
            inner.close()
            raise
        self._start, self._window = 0, b""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset [bytes]; return how much came: less only at the end. Raise Unreadable."""
        done = 0
        while done < len(buffer) and offset + done < self.size_bytes:
            at = offset + done - self._start
            if not 0 <= at < len(self._window):
                self._open_window((offset + done) // crypt.BLOCK_BYTES, len(buffer) - done)
                at = offset + done - self._start
                if at >= len(self._window):
                    break  # it has become shorter
            piece = self._window[at : at + len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def _open_window(self, first: int, wanted_bytes: int) -> None:
        """Read and open some blocks, the first of them by its number; at least one."""
        blocks = min(_BLOCKS_AT_ONCE, wanted_bytes // crypt.BLOCK_BYTES + 1)
        sealed = memoryview(bytearray(blocks * crypt.SEALED_BLOCK_BYTES))
        count = self._inner.read_into(sealed, crypt.block_offset(first))
        opened = [
            self._opening.block(first + number, bytes(sealed[at : min(at + crypt.SEALED_BLOCK_BYTES, count)]))
            for number, at in enumerate(range(0, count, crypt.SEALED_BLOCK_BYTES))
        ]
        self._start, self._window = first * crypt.BLOCK_BYTES, b"".join(opened)

    def will_need(self, offset: int, size_bytes: int) -> None:
        """Have it read ahead, where that can be."""
        self._inner.will_need(offset, crypt.sealed_size(size_bytes))

    def close(self) -> None:
        """Close the file; once more does nothing."""
        self._window = b""
        self._inner.close()


class _Digested:
    """Chunks, digested as they pass."""

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._chunks, self._digest = chunks, hashlib.sha256()

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for chunk in self._chunks:
            self._digest.update(chunk)
            yield chunk

    def digest(self) -> bytes:
        return self._digest.digest()
