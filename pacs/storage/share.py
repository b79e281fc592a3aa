"""A volume on a mounted NFS or SMB share. No call of ours touches the share itself: processes that can be left do.

What such a process does is what a volume on a local disk does (pacs/storage/files.py), so files lie there as they do
on a disk. Each answer is waited for as long as `timeout_s` says; after that the volume is missing, until it answers a
fresh process (pacs/storage/share_pool.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pacs.errors import ForeignVolume, PacsError, SettingsError, VolumeMissing
from pacs.storage.kinds import FileStatus, Kind, Room, ToPut
from pacs.storage.promises import NFS, SMB
from pacs.storage.share_mount import require_share
from pacs.storage.share_pool import Process, pool_of
from pacs.storage.share_wire import from_failure
from pacs.storage.volume import VolumeIdentity

#: What is asked for in one request [bytes], and what a reader reads at a time at least.
_CHUNK_SIZE_BYTES = 1 << 20


class ShareVolume:
    """An open volume on a share."""

    def __init__(self, kind: Kind, location: str, role: str, options: Mapping[str, Any]) -> None:
        """Open the volume at a folder. Raise VolumeMissing if it is not mounted, does not answer or is no volume."""
        require_options(options)
        self.promise = NFS if kind == "nfs" else SMB
        self._kind, self._location, self._role, self._options = kind, location, role, options
        self._pool = pool_of(location, options)
        self._require_mounted()
        with self._pool.process(role) as process:
            self.identity = _identity(process.ask("open", role=role))

    @property
    def volume_id(self) -> str:
        """The id in the volume's identity file."""
        return self.identity.volume_id

    @property
    def location(self) -> str:
        """Its folder."""
        return self._location

    def require_present(self) -> None:
        """Raise VolumeMissing or ForeignVolume unless the volume that was opened is still mounted there."""
        self._require_mounted()
        with self._pool.process(self._role) as process:
            self._require_same(process)

    def require_writable(self) -> None:
        """The same, and raise VolumeFailed if it can only be read."""
        self.require_present()
        self._ask("require_writable")

    def room(self) -> Room:
        """How much room the server says there is."""
        return Room(**self._ask("room"))

    def require_room(self, size_bytes: int = 0) -> None:
        """Raise VolumeFull unless size_bytes more fit, with the reserve left."""
        self._ask("require_room", size_bytes=size_bytes)

    def put(self, path: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Write a file, whole under its own name or not at all; return the SHA-256 of what was given."""
        self._require_mounted()
        with self._pool.stream(self._role) as process:
            self._require_same(process)
            process.begin("put", path=path, size_bytes=size_bytes)
            _send_chunks(process, chunks)
            return bytes.fromhex(process.result())

    def put_many(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        """The same for many files, with one sync of the share; beside each its SHA-256, or why it is not there."""
        self._require_mounted()
        failed: dict[int, PacsError] = {}
        with self._pool.stream(self._role) as process:
            self._require_same(process)
            process.begin("put_many", files=[(file.path, file.size_bytes) for file in files])
            for number, file in enumerate(files):
                try:
                    _send_chunks(process, file.chunks)
                except PacsError as error:
                    failed[number] = error
            outcomes = process.result()
        return [
            failed.get(number) or (bytes.fromhex(each) if isinstance(each, str) else from_failure(each))
            for number, each in enumerate(outcomes)
        ]

    def open(self, path: str) -> ShareFile:
        """Open a file for reading. Raise NotFound."""
        return ShareFile(self, path)

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """A file's bytes in chunks, from an offset [bytes]. Raise NotFound."""
        while True:
            chunk, size_bytes = self.read_piece(path, offset, _CHUNK_SIZE_BYTES)
            if chunk:
                yield chunk
            offset += len(chunk)
            if not chunk or offset >= size_bytes:
                return

    def read_start(self, path: str, size_bytes: int) -> bytes:
        """A file's first bytes, at most size_bytes. Raise NotFound."""
        return self.read_piece(path, 0, size_bytes)[0]

    def read_piece(self, path: str, offset: int, size_bytes: int) -> tuple[bytes, int]:
        """Bytes of a file from an offset, less than asked for only at its end, and its size. Raise NotFound."""
        pieces: list[bytes] = []
        with self._pool.process(self._role) as process:
            whole_size_bytes: int = process.ask(
                "read_into", lambda _kind, content: pieces.append(content),
                path=path, offset=offset, size_bytes=min(size_bytes, 4 * _CHUNK_SIZE_BYTES),
            )  # fmt: skip
        return b"".join(pieces), whole_size_bytes

    def size_of(self, path: str) -> int:
        """A file's size [bytes]. Raise NotFound."""
        return cast(int, self._ask("size_of", path=path))

    def has(self, path: str) -> bool:
        """Whether there is a file at path."""
        return cast(bool, self._ask("has", path=path))

    def digest_on_disk(self, path: str) -> bytes:
        """SHA-256 of a file as the server has it: read past this machine's caches. Raise NotFound."""
        return bytes.fromhex(self._ask("digest", path=path))

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is no fault."""
        self._change("remove", path=path)

    def quarantine(self, path: str) -> str:
        """Move a file that is nobody's to `quarantine/`; return its new path."""
        return cast(str, self._change("quarantine", path=path))

    def walk(self) -> Iterator[FileStatus]:
        """Every file below `objects/` and `incoming/`."""
        self._require_mounted()
        with self._pool.stream(self._role) as process:
            process.begin("walk")
            for kind, content in process.frames():
                if kind == b"I":
                    for path, size_bytes, modified_s in json.loads(content):
                        yield FileStatus(path, size_bytes, datetime.fromtimestamp(modified_s, UTC))

    def read_small(self, path: str) -> bytes:
        """A small file beside the objects. Raise NotFound."""
        return b"".join(self.read(path))

    def replace_small(self, path: str, content: bytes) -> None:
        """Write a small file durably; a reader sees the old content or the new."""
        self._require_mounted()
        with self._pool.stream(self._role) as process:
            self._require_same(process)
            process.begin("replace_small", path=path)
            _send_chunks(process, [content])
            process.result()

    def close(self) -> None:
        """End the processes that do nothing; once more does nothing."""
        self._pool.close()

    def _ask(self, call: str, **words: Any) -> Any:
        with self._pool.process(self._role) as process:
            return process.ask(call, **words)

    def _change(self, call: str, **words: Any) -> Any:
        self._require_mounted()
        with self._pool.process(self._role) as process:
            self._require_same(process)
            return process.ask(call, **words)

    def _require_mounted(self) -> None:
        require_share(self._kind, Path(self._location), bool(self._options.get("any_file_system")))

    def _require_same(self, process: Process) -> None:
        """What a process finds there is what was opened here: each knows only what it opened itself."""
        found = _identity(process.ask("identity", role=self._role))
        if found != self.identity:
            kind = ForeignVolume if found.appliance_id != self.identity.appliance_id else VolumeMissing
            raise kind(f"Another volume came to {self.location}. Mount the share of {self.volume_id}.")


class ShareFile:
    """A file of a share that is being read; nothing of the share is held open for it."""

    def __init__(self, volume: ShareVolume, path: str) -> None:
        """Open a file. Raise NotFound."""
        self._volume, self._path = volume, path
        self._start = 0
        self._window, self.size_bytes = volume.read_piece(path, 0, _CHUNK_SIZE_BYTES)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset [bytes]; return how much came: less only at the end. Raise VolumeFailed."""
        done = 0
        while done < len(buffer) and offset + done < self.size_bytes:
            at = offset + done - self._start
            if not 0 <= at < len(self._window):
                size_bytes = max(len(buffer) - done, _CHUNK_SIZE_BYTES)
                self._window, _ = self._volume.read_piece(self._path, offset + done, size_bytes)
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


def identity_at(kind: Kind, location: str, options: Mapping[str, Any]) -> VolumeIdentity | None:
    """The identity of the volume on a share; None if the share is empty. Raise UsageError if it is neither."""
    found = _ask_raw(kind, location, options, "identity_at")
    return None if found is None else _identity(found)


def make_at(kind: Kind, location: str, options: Mapping[str, Any], role: str, appliance_id: str) -> VolumeIdentity:
    """Make an empty share a volume."""
    return _identity(_ask_raw(kind, location, options, "make", role=role, appliance_id=appliance_id))


def unmake_at(kind: Kind, location: str, options: Mapping[str, Any]) -> None:
    """Leave a share that was made a volume a moment ago as it was found."""
    with contextlib.suppress(PacsError):
        _ask_raw(kind, location, options, "unmake")


def _ask_raw(kind: Kind, location: str, options: Mapping[str, Any], call: str, **words: Any) -> Any:
    require_options(options)
    require_share(kind, Path(location), bool(options.get("any_file_system")))
    with pool_of(location, options).raw_process() as process:
        return process.ask(call, **words)


def require_options(options: Mapping[str, Any]) -> None:
    """Raise SettingsError unless these are options of a share: timeout_s (30), any_file_system (false).

    What was mounted when it was added (source, type) is noted there too.
    """
    for name, value in options.items():
        is_time = name == "timeout_s" and type(value) in (int, float) and value > 0
        is_choice = name == "any_file_system" and isinstance(value, bool)
        if not (is_time or is_choice or name in ("source", "type")):
            raise SettingsError(f"A share has no option {name} = {value!r}. It knows timeout_s and any_file_system.")


def _identity(found: Mapping[str, Any]) -> VolumeIdentity:
    return VolumeIdentity(**{**found, "roles": tuple(found["roles"])})


def _send_chunks(process: Process, chunks: Iterable[bytes | memoryview]) -> None:
    """Send the bytes of a file; that their source failed is sent, too, and raised on."""
    try:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            for at in range(0, len(view), _CHUNK_SIZE_BYTES):
                process.wire.send(b"D", view[at : at + _CHUNK_SIZE_BYTES])
    except PacsError:
        process.wire.send(b"X")
        raise
    process.wire.send(b"E")
