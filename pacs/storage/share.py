"""A volume on a mounted NFS or SMB share. No call of ours touches the share itself: processes that can be left do.

What such a process does is what a volume on a local disk does (pacs/storage/files.py), so files lie there as they do
on a disk. Each answer is waited for as long as `timeout_s` says; after that the volume is missing, until it answers a
fresh process (pacs/storage/share_pool.py).
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pacs import clock
from pacs.errors import ForeignVolume, PacsError, VolumeMissing
from pacs.storage import durable
from pacs.storage.files import RESERVED_BYTES
from pacs.storage.incoming import ReceivedFile
from pacs.storage.kinds import FileStatus, Kind, Room, ToPut
from pacs.storage.promises import NFS, SMB
from pacs.storage.reading import PieceFile
from pacs.storage.share_incoming import ShareIncoming
from pacs.storage.share_mount import require_share
from pacs.storage.share_place import identity_of, require_options
from pacs.storage.share_pool import Process, pool_of
from pacs.storage.share_wire import from_failure

_NFS_NOT_SYNC = replace(NFS, may_receive=False)
#: How many files are synced together: so many are to be done within the share's time limit.
_BATCH = 64
#: How long what the server said of its room is believed [s]: services ask for it every few seconds.
_ROOM_FOR_S = 60.0
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
        self._room: tuple[Room | None, float] = (None, 0.0)
        self._require_mounted()
        with self._pool.process(role) as process:
            self.identity = identity_of(process.ask("open", role=role))

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
            self._ask_room(process)

    def require_writable(self) -> None:
        """The same, and raise VolumeFailed if it can only be read."""
        self.require_present()
        self._ask("require_writable")

    def room(self) -> Room:
        """How much room the server says there is, or said a moment ago: who chooses a volume does not wait for it."""
        room, said_at_s = self._room
        if room is None or clock.monotonic_s() > said_at_s + _ROOM_FOR_S:
            with self._pool.process(self._role) as process:
                return self._ask_room(process)
        return room

    def _ask_room(self, process: Process) -> Room:
        room = Room(**process.ask("room"))
        self._room = (room, clock.monotonic_s())
        return room

    def require_room(self, size_bytes: int = 0) -> None:
        """Raise VolumeFull unless size_bytes more fit, with the reserve left."""
        free_bytes = self.room().free_bytes
        if free_bytes is not None and free_bytes < size_bytes + RESERVED_BYTES:
            raise durable.as_volume_error(OSError(errno.ENOSPC, ""), Path(self._location))

    def begin(self) -> ShareIncoming:
        """Begin to receive a file of whatever size. Raise VolumeMissing."""
        self._require_mounted()
        self._pool.require_answering()
        return ShareIncoming(self._writing, self.location)

    def place(self, received: ReceivedFile, path: str) -> None:
        """Give a received file its own name, durably."""
        self._change(
            "place", temporary=received.temporary, sha256=received.sha256.hex(),
            size_bytes=received.size_bytes, path=path,
        )  # fmt: skip

    def discard(self, received: ReceivedFile) -> None:
        """Remove a received file that is not to be placed."""
        with contextlib.suppress(PacsError):
            self._ask("discard", temporary=received.temporary)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Process]:
        with self._pool.stream(self._role) as process:
            self._require_same(process)
            yield process

    def put(self, path: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Write a file, whole under its own name or not at all; return the SHA-256 of what was given."""
        self._require_mounted()
        with self._writing() as process:
            process.begin("put", path=path, size_bytes=size_bytes)
            _send_chunks(process, chunks)
            return bytes.fromhex(process.result())

    def put_many(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        """The same for many files, synced a batch at a time; beside each its SHA-256, or why it is not there."""
        outcomes: list[bytes | PacsError] = []
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            try:
                outcomes += self._put_batch(batch)
            except PacsError as error:  # what became of these is unknown; those before are there
                outcomes += [error] * len(batch)
        return outcomes

    def _put_batch(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        self._require_mounted()
        failed: dict[int, PacsError] = {}
        with self._writing() as process:
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

    def open(self, path: str) -> PieceFile:
        """Open a file for reading. Raise NotFound."""
        return PieceFile(self, path, _CHUNK_SIZE_BYTES)

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

    def read_on_disk(self, path: str) -> Iterator[bytes]:
        """A file's bytes as the server has them: read past this machine's caches. Raise NotFound."""
        with self._pool.stream(self._role) as process:
            process.begin("read_on_disk", path=path)
            for kind, content in process.frames():
                if kind == b"D":
                    yield content

    def digest_on_disk(self, path: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """SHA-256 of a file as the server has it: read past this machine's caches. Raise NotFound."""
        found = bytes.fromhex(self._ask("digest", path=path))
        if on_bytes is not None:
            on_bytes(self.size_of(path))
        return found

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is no fault."""
        self._change("remove", path=path)

    def quarantine(self, path: str) -> str:
        """Move a file that is nobody's to `quarantine/`; return its new path."""
        return cast(str, self._change("quarantine", path=path))

    def names(self, folder: str) -> list[str]:
        """The names of what is directly in a folder, in no order; none if it is not there."""
        return cast(list[str], self._ask("names", folder=folder))

    def walk(self, below: str = "") -> Iterator[FileStatus]:
        """Every file below a folder; below `objects/` and `incoming/` if none is named."""
        self._require_mounted()
        with self._pool.stream(self._role) as process:
            process.begin("walk", below=below)
            for kind, content in process.frames():
                if kind == b"I":
                    for path, size_bytes, modified_s, is_plain in json.loads(content):
                        yield FileStatus(path, size_bytes, datetime.fromtimestamp(modified_s, UTC), is_plain)

    def read_small(self, path: str) -> bytes:
        """A small file beside the objects. Raise NotFound."""
        return b"".join(self.read(path))

    def replace_small(self, path: str, content: bytes) -> None:
        """Write a small file durably; a reader sees the old content or the new."""
        self._require_mounted()
        with self._writing() as process:
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
        mount = require_share(self._kind, Path(self._location), bool(self._options.get("any_file_system")))
        if self._kind == "nfs":  # it may have been mounted in another way since
            self.promise = NFS if not mount.why_it_may_not_receive else _NFS_NOT_SYNC

    def _require_same(self, process: Process) -> None:
        """What a process finds there is what was opened here: each knows only what it opened itself."""
        found = identity_of(process.ask("identity", role=self._role))
        if found != self.identity:
            kind = ForeignVolume if found.appliance_id != self.identity.appliance_id else VolumeMissing
            raise kind(f"Another volume came to {self.location}. Mount the share of {self.volume_id}.")


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
