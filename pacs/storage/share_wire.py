"""What a service and its share process say to each other, over a socket: frames with a kind and a length.

    service → process   Q request (JSON)   D bytes   E no more bytes   X the bytes' source failed
    process → service   D bytes   I items (JSON)   P it goes on   R result (JSON)   F failure (JSON: class, message)

One request at a time. Each frame is waited for as long as the socket's time limit says and no longer.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from pacs import errors

_HEADER = struct.Struct(">cI")
#: The largest frame [bytes]; larger ones mean that the two have lost each other.
FRAME_SIZE_BYTES_MAX = 8 << 20


class Lost(Exception):
    """The other end is gone, or says what it cannot mean."""


class NoAnswer(Exception):
    """The other end took longer than the time limit."""


class Wire:
    """One end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def set_limit(self, timeout_s: float | None) -> None:
        """How long a frame may take from now on [s]."""
        self._socket.settimeout(timeout_s)

    def send(self, kind: bytes, content: bytes | memoryview = b"") -> None:
        """Send a frame. Raise NoAnswer, or Lost."""
        view = memoryview(content).cast("B")
        try:
            if len(view) < 4096:
                self._socket.sendall(_HEADER.pack(kind, len(view)) + bytes(view))
            else:
                self._socket.sendall(_HEADER.pack(kind, len(view)))
                self._socket.sendall(view)
        except TimeoutError as error:
            raise NoAnswer from error
        except OSError as error:
            raise Lost(str(error)) from error

    def say(self, kind: bytes, content: Any) -> None:
        """Send a frame of JSON."""
        self.send(kind, json.dumps(content).encode())

    def receive(self) -> tuple[bytes, bytes]:
        """The next frame: its kind and its content. Raise NoAnswer, or Lost."""
        kind, size_bytes = _HEADER.unpack(self._read(_HEADER.size))
        if size_bytes > FRAME_SIZE_BYTES_MAX:
            raise Lost(f"a frame of {size_bytes} bytes")
        return kind, bytes(self._read(size_bytes))

    def has_more(self, timeout_s: float) -> bool:
        """Whether a frame begins to come, or the other end closes, within a time [s]."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        except OSError as error:
            raise Lost(str(error)) from error
        finally:
            self._socket.settimeout(None)
        return True

    def close(self) -> None:
        """Close this end; once more does nothing."""
        self._socket.close()

    def _read(self, size_bytes: int) -> bytearray:
        buffer = bytearray(size_bytes)
        view, done = memoryview(buffer), 0
        try:
            while done < size_bytes:
                count = self._socket.recv_into(view[done:])
                if count == 0:
                    raise Lost("it closed its end")
                done += count
        except TimeoutError as error:
            raise NoAnswer from error
        except OSError as error:
            raise Lost(str(error)) from error
        return buffer


def as_failure(error: errors.PacsError) -> dict[str, str]:
    """An error of the tree, as it is sent."""
    return {"error": type(error).__name__, "message": str(error)}


def from_failure(failure: dict[str, str]) -> errors.PacsError:
    """The error that was sent."""
    found = getattr(errors, failure["error"], errors.VolumeFailed)
    if not (isinstance(found, type) and issubclass(found, errors.PacsError)):
        found = errors.VolumeFailed
    return found(failure["message"])
