"""What does a share's file-system calls: `python -m pacs.storage.share_process ROOT`, with a socket as its stdin.

A call on a share whose server went away can last for ever, and what waits in it cannot be ended. So it waits here, in
a process that a service can leave behind (pacs/storage/share_pool.py). What is done is what a volume on a local disk
does (pacs/storage/files.py); this only carries it over the socket.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pacs.errors import PacsError, VolumeError, VolumeFailed, VolumeFull, VolumeMissing
from pacs.storage import making
from pacs.storage.files import LocalVolume
from pacs.storage.incoming import ReceivedFile
from pacs.storage.kinds import ToPut
from pacs.storage.reading import LocalFile, read_past_cache, unreadable
from pacs.storage.share_wire import Lost, Wire, as_failure

#: Files that are being read stay open between requests: so many, and for so long after the last request [s].
_OPEN_FILES_MAX = 16
_OPEN_FOR_S = 2.0
#: How many files a frame of a listing has, and how often a long call says that it goes on [s].
_ITEMS = 500
_PROGRESS_S = 1.0
#: Errors of the way to a server, not of a file.
_ON_THE_WAY = {
    errno.EAGAIN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.EINTR, errno.EKEYEXPIRED, errno.EKEYREJECTED, errno.EKEYREVOKED, errno.ENETDOWN, errno.ENETUNREACH,
    errno.ENOKEY, errno.ENOLINK, errno.ENOTCONN, errno.EPIPE, errno.EREMOTEIO, errno.ESHUTDOWN, errno.ESTALE,
    errno.ETIMEDOUT,
}  # fmt: skip


class _SourceFailed(PacsError):
    """The bytes of a file that was to be put did not all come."""


class Served:
    """One service's requests, one after the other."""

    def __init__(self, root: Path, wire: Wire) -> None:
        self._root, self._wire = root, wire
        self._volume: LocalVolume | None = None
        self._open: OrderedDict[str, LocalFile] = OrderedDict()

    def serve(self) -> None:
        """Serve until the service closes its end."""
        while True:
            while not self._wire.has_more(_OPEN_FOR_S):
                self._close_files()  # a file that is removed while somebody has it open would leave a ghost
            kind, content = self._wire.receive()
            if kind != b"Q":
                raise Lost("no request")
            self._answer(content)

    def _answer(self, content: bytes) -> None:
        request = json.loads(content)
        call: Callable[..., Any] = getattr(self, f"do_{request.pop('call')}")
        try:
            result = call(**request)
        except (PacsError, OSError) as error:
            self._wire.say(b"F", as_failure(self._meant_by(error)))
        else:
            self._wire.say(b"R", result)

    def _meant_by(self, error: PacsError | OSError) -> PacsError:
        """The error of a request. One of the way to the server is not the file's: its copy is as good as it was."""
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or isinstance(error, VolumeFull):
            return error if isinstance(error, PacsError) else VolumeFailed()
        why = f"A call on the share at {self._root} failed: {cause.strerror}. Look at its server and at the network."
        if cause.errno in _ON_THE_WAY:
            return VolumeMissing(why)
        try:
            if self._volume is not None:
                self._volume.require_present()
        except (PacsError, OSError):
            return VolumeMissing(why)
        return error if isinstance(error, PacsError) else VolumeFailed(why)

    @property
    def volume(self) -> LocalVolume:
        """The volume that was opened."""
        if self._volume is None:
            raise VolumeMissing(f"There was no volume at {self._root} a moment ago. Is the right share mounted?")
        return self._volume

    def do_open(self, role: str) -> Any:
        """Open the volume; its identity."""
        self._volume = None
        self._close_files()
        self._volume = LocalVolume(self._root, role)
        return asdict(self._volume.identity)

    def do_identity(self, role: str) -> Any:
        """Which volume is there now. Another than was opened is opened in its place; the service compares."""
        try:
            self.volume.require_present()
        except VolumeError:
            return self.do_open(role)
        return asdict(self.volume.identity)

    def do_identity_at(self) -> Any:
        """The identity of the volume there, None if there is nothing."""
        found = making.identity_in(self._root)
        return None if found is None else asdict(found)

    def do_make(self, role: str, appliance_id: str) -> Any:
        """Make the share a volume."""
        return asdict(making.make_in(self._root, role, appliance_id))

    def do_unmake(self) -> None:
        self._volume = None
        making.unmake_in(self._root)

    def do_require_writable(self) -> None:
        self.volume.require_writable()

    def do_room(self) -> Any:
        return asdict(self.volume.room())

    def do_size_of(self, path: str) -> int:
        return self.volume.size_of(path)

    def do_has(self, path: str) -> bool:
        self.volume.require_present()
        return self.volume.has(path)

    def do_remove(self, path: str) -> None:
        self._close_file(path)
        self.volume.remove(path)

    def do_quarantine(self, path: str) -> str:
        self._close_file(path)
        return self.volume.quarantine(path)

    def do_read_into(self, path: str, offset: int, size_bytes: int) -> int:
        """A piece of a file, as one frame of bytes; the file's size."""
        file = self._opened(path)
        buffer = memoryview(bytearray(size_bytes))
        count = file.read_into(buffer, offset)
        self._wire.send(b"D", buffer[:count])
        return file.size_bytes

    def do_digest(self, path: str) -> str:
        """SHA-256 of a file, past this machine's caches."""
        digest, said = hashlib.sha256(), time.monotonic()
        try:
            for chunk in read_past_cache(self.volume.path_of(path)):
                digest.update(chunk)
                if time.monotonic() - said > _PROGRESS_S:
                    self._wire.send(b"P")
                    said = time.monotonic()
        except OSError as error:
            raise unreadable(self._root, error) from error
        return digest.hexdigest()

    def do_read_on_disk(self, path: str) -> None:
        """A file's bytes, past this machine's caches, a frame a piece."""
        for chunk in self.volume.read_on_disk(path):
            self._wire.send(b"D", chunk)

    def do_put(self, path: str, size_bytes: int) -> str:
        """Write a file whose bytes follow."""
        chunks = _Chunks(self._wire)
        try:
            return self.volume.put(path, chunks, size_bytes).hex()
        finally:
            chunks.drain()

    def do_put_many(self, files: list[tuple[str, int]]) -> Any:
        """Write files whose bytes follow, one after the other."""
        sources = [_Chunks(self._wire) for _ in files]

        def chunks(number: int) -> Iterator[bytes]:
            for earlier in sources[:number]:
                earlier.drain()
            yield from sources[number]

        to_put = [ToPut(path, chunks(number), size_bytes) for number, (path, size_bytes) in enumerate(files)]
        try:
            outcomes = self.volume.put_many(to_put)
        finally:
            for each in sources:
                each.drain()
        return [each.hex() if isinstance(each, bytes) else as_failure(each) for each in outcomes]

    def do_receive(self, size_bytes: int) -> Any:
        """Write a file whose bytes follow, under a temporary name."""
        chunks = _Chunks(self._wire)
        try:
            received = self.volume.receive(chunks, size_bytes)
        finally:
            chunks.drain()
        return [received.temporary, received.sha256.hex(), received.size_bytes]

    def do_place(self, temporary: str, sha256: str, size_bytes: int, path: str) -> None:
        self.volume.place(ReceivedFile(temporary, bytes.fromhex(sha256), size_bytes), path)

    def do_discard(self, temporary: str) -> None:
        self.volume.discard(ReceivedFile(temporary, b"", 0))

    def do_names(self, folder: str) -> list[str]:
        return self.volume.names(folder)

    def do_walk(self, below: str) -> None:
        """Every file, in frames of many."""
        items: list[tuple[str, int, float, bool]] = []
        said = time.monotonic()
        for each in self.volume.walk(below):
            items.append((each.path, each.size_bytes, each.modified_at.timestamp(), each.is_plain))
            if len(items) == _ITEMS or time.monotonic() - said > _PROGRESS_S:
                self._wire.say(b"I", items)
                items.clear()
                said = time.monotonic()
        self._wire.say(b"I", items)

    def do_read_small(self, path: str) -> None:
        self._wire.send(b"D", self.volume.read_small(path))

    def do_replace_small(self, path: str) -> None:
        chunks = _Chunks(self._wire)
        self.volume.replace_small(path, b"".join(chunks))

    def _opened(self, path: str) -> LocalFile:
        file = self._open.pop(path, None) or self.volume.open(path)
        self._open[path] = file
        while len(self._open) > _OPEN_FILES_MAX:
            self._open.popitem(last=False)[1].close()
        return file

    def _close_file(self, path: str) -> None:
        file = self._open.pop(path, None)
        if file is not None:
            file.close()

    def _close_files(self) -> None:
        for path in list(self._open):
            self._close_file(path)


class _Chunks:
    """The bytes of a file that follow a request. They are read to their end, wanted or not."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._ended = wire, False

    def __iter__(self) -> Iterator[bytes]:
        while not self._ended:
            kind, content = self._wire.receive()
            if kind == b"D":
                yield content
                continue
            self._ended = True
            if kind == b"X":
                raise _SourceFailed
            if kind != b"E":
                raise Lost("no bytes")

    def drain(self) -> None:
        """Read what is left of them."""
        with contextlib.suppress(_SourceFailed):
            for _ in self:
                pass


def main() -> None:
    """Serve the socket that is this process's stdin."""
    wire = Wire(socket.socket(fileno=0))
    with contextlib.suppress(Lost):
        Served(Path(sys.argv[1]), wire).serve()


if __name__ == "__main__":
    main()
