"""The DICOM upper layer on a blocking socket: PDUs in and out (PS3.8 chapter 9).

Reads block in the kernel, so an association at rest costs nothing and one at work never sleeps. What a peer can make
us hold is bounded: association PDUs by PDU_SIZE_BYTES_MAX, data by the caller's buffer, however long it says they are.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pacs import clock
from pacs.errors import PacsError

#: No association request, acceptance or abort is longer [bytes]: 128 contexts with all syntaxes are 200 kB.
PDU_SIZE_BYTES_MAX = 1 << 20
#: How often somebody who watches is asked while a peer makes us wait [s].
WATCH_INTERVAL_S = 0.25
#: How many buffers the kernel takes in one write (IOV_MAX).
_PARTS_MAX = 1024
_CLOSE_S = 2.0
#: A PDU's header, and the header of the first presentation data value behind it: they nearly always come together.
_START_SIZE_BYTES, _HEADER_SIZE_BYTES = 12, 6


class PduType(IntEnum):
    """The first byte of a PDU, PS3.8 9.3.1."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


# Source and reason of an A-ABORT, PS3.8 Table 9-26.
ABORT_BY_USER = (0, 0)
ABORT_UNEXPECTED_PDU = (2, 2)
ABORT_INVALID_PDU = (2, 6)


class ConnectionLost(PacsError):
    """The peer closed the connection, or said nothing for too long."""


class TimedOut(ConnectionLost):
    """The peer said nothing, or took nothing, for too long."""


class ProtocolError(PacsError):
    """The peer sent what the DICOM upper layer does not allow. The association is aborted; ask the device's maker."""

    def __init__(self, message: str, abort: tuple[int, int] = ABORT_INVALID_PDU) -> None:
        super().__init__(f"{message} The association is aborted; ask the sending device's maker.")
        self.abort = abort


@dataclass(frozen=True)
class PduHeader:
    """Type and length [bytes] of the PDU whose content comes next."""

    type: int
    length: int


class UpperLayer:
    """PDUs on one connected socket, plain or TLS. Only its own thread uses it, `cut_off` excepted."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self.connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # All that is asked for at once, or what came within the interval.
        self._flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
        self.set_timeout(timeout_s)
        self._header = bytearray(_START_SIZE_BYTES)
        self._waited_s = 0.0  # how long the PDU that is read has kept us waiting
        self._ahead = b""  # what was read already of what comes next

    def set_timeout(self, timeout_s: float) -> None:
        """How long a peer may be silent [s], how long it may take for the whole of a PDU, and for reading what we
        send."""
        self._timeout_s = timeout_s
        self._while_waiting: Callable[[], None] = _nothing
        self._set_interval(timeout_s)

    def watch(self, while_waiting: Callable[[], None]) -> None:
        """Call this every WATCH_INTERVAL_S for as long as the peer makes us wait; what it raises ends the waiting."""
        self._while_waiting = while_waiting
        self._set_interval(min(WATCH_INTERVAL_S, self._timeout_s))

    def _set_interval(self, interval_s: float) -> None:
        """How long one call may wait [s]. On a plain connection the kernel keeps it: Python's own timeout is a poll
        before each call, and a wake-up for each few segments where one at the end is enough."""
        self._interval_s = interval_s
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.settimeout(interval_s)
            return
        self.connection.settimeout(None)
        interval = struct.pack("@ll", int(interval_s), int(interval_s % 1 * 1e6))
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def _wait_on(self, waited_s: float, error: OSError) -> float:
        """After an interval in which the peer did nothing: how long that is now [s]. Raise TimedOut if too long."""
        waited_s += self._interval_s
        if waited_s >= self._timeout_s:
            raise TimedOut(f"The peer did nothing for {self._timeout_s:g} s.") from error
        self._while_waiting()
        return waited_s

    def wait_input(self, timeout_s: float | None, wake_fd: int | None = None) -> bool:
        """Wait for the peer's next bytes, or its going: True. False if wake_fd became readable before.

        Raise TimedOut if neither comes within timeout_s [s]; None waits for ever.
        """
        if self._ahead or self._pending():
            return True
        poll = select.poll()  # unlike select, it takes any number of open files
        poll.register(self.connection, select.POLLIN)
        if wake_fd is not None:
            poll.register(wake_fd, select.POLLIN)
        found = poll.poll(None if timeout_s is None else timeout_s * 1000)
        if not found:
            raise TimedOut(f"The peer said nothing for {timeout_s:g} s.")
        return any(fd != wake_fd for fd, _event in found)

    def read_header(self) -> PduHeader:
        """Wait for the next PDU. Raise ConnectionLost."""
        self._waited_s = 0.0
        start = memoryview(self._header)
        have = self._take_ahead(start)
        while have < _HEADER_SIZE_BYTES:  # its start may be waited for; what follows has to come
            have += self._receive(start[have:], 0, is_start=have == 0)
        self._ahead = bytes(start[_HEADER_SIZE_BYTES:have])
        kind, length = struct.unpack_from(">BxL", start)
        return PduHeader(kind, length)

    def read_into(self, buffer: memoryview) -> None:
        """Fill the buffer with what follows a PDU's header. Raise ConnectionLost."""
        at = self._take_ahead(buffer)
        while at < len(buffer):
            at += self._receive(buffer[at:], self._flags)

    def _take_ahead(self, buffer: memoryview) -> int:
        size = min(len(self._ahead), len(buffer))
        buffer[:size], self._ahead = self._ahead[:size], self._ahead[size:]
        return size

    def _receive(self, buffer: memoryview, flags: int, is_start: bool = False) -> int:
        """Some of the peer's next bytes: how many."""
        silent_s = 0.0
        while True:
            began_s = clock.monotonic_s()
            try:
                size = self.connection.recv_into(buffer, len(buffer), flags)
            except (TimeoutError, BlockingIOError) as error:
                silent_s = self._wait_on(silent_s, error)
                continue
            except OSError as error:
                raise ConnectionLost(f"The connection was lost: {error}.") from error
            if size == 0:
                raise ConnectionLost("The peer closed the connection.")
            # Our own time, on the disk say, does not count; a byte now and then does not start the count again.
            if not is_start:
                self._waited_s += silent_s + clock.monotonic_s() - began_s
                if self._waited_s > self._timeout_s:
                    raise TimedOut(f"The peer took more than {self._timeout_s:g} s to send a PDU.")
            return size

    def read(self, length: int) -> bytes:
        """The next length bytes, for what must be whole in memory. Raise ProtocolError if that is too much."""
        if length > PDU_SIZE_BYTES_MAX:
            raise ProtocolError(f"A PDU said to be {length} bytes long.")
        content = bytearray(length)
        self.read_into(memoryview(content))
        return bytes(content)

    def send(self, *parts: bytes | memoryview) -> None:
        """Send bytes that are whole PDUs. Raise ConnectionLost; TimedOut if the peer does not take them in time."""
        if isinstance(self.connection, ssl.SSLSocket) and len(parts) > 1:
            parts = (b"".join(parts),)  # it has no gathering write, and makes records of its own
        at, offset, waited_s = 0, 0, 0.0
        ends_s = clock.monotonic_s() + self._timeout_s
        while at < len(parts):
            batch: Sequence[bytes | memoryview] = parts[at : at + _PARTS_MAX]
            if offset:
                batch = [memoryview(batch[0])[offset:], *batch[1:]]
            try:
                sent = self.connection.send(batch[0]) if len(batch) == 1 else self.connection.sendmsg(batch)
            except (TimeoutError, BlockingIOError) as error:
                waited_s = self._wait_on(waited_s, error)
                continue
            except OSError as error:
                raise ConnectionLost(f"The connection was lost: {error}.") from error
            waited_s, offset = 0.0, offset + sent
            while at < len(parts) and offset >= len(parts[at]):
                offset -= len(parts[at])
                at += 1
            if at < len(parts) and clock.monotonic_s() > ends_s:
                raise TimedOut(f"The peer took more than {self._timeout_s:g} s to read what we sent.")

    def acknowledge_at_once(self) -> None:
        """Have the next bytes acknowledged as they come. A peer that sends an answer in two writes and has Nagle's
        algorithm on would wait 40 ms for that between them. The kernel forgets it: ask before each answer."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def has_input(self) -> bool:
        """Whether the peer has sent something, or gone, without waiting."""
        try:
            if self._ahead or self._pending():
                return True
            poll = select.poll()
            poll.register(self.connection, select.POLLIN)
            return bool(poll.poll(0)) and self._has_more_than_tls()
        except (OSError, ValueError):
            return True

    def _pending(self) -> int:
        return self.connection.pending() if isinstance(self.connection, ssl.SSLSocket) else 0

    def _has_more_than_tls(self) -> bool:
        """Whether what came is for us: TLS sends records of its own, a new key for one."""
        if not isinstance(self.connection, ssl.SSLSocket):
            return True
        self.connection.settimeout(0)
        try:
            self._ahead = self.connection.recv(1)
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            self.connection.settimeout(self._interval_s)

    def send_abort(self, source: int, reason: int) -> None:
        """Send an A-ABORT; a peer that does not read it is no matter."""
        try:
            self.connection.settimeout(_CLOSE_S)
            self.connection.sendall(struct.pack(">BxLxxBB", PduType.ABORT, 4, source, reason))
        except OSError:
            return

    def cut_off(self) -> None:
        """End the connection under the thread that uses it, from another one. That thread closes it."""
        with contextlib.suppress(OSError):
            if not isinstance(self.connection, ssl.SSLSocket):  # its state is its thread's alone
                self.connection.send(struct.pack(">BxLxxBB", PduType.ABORT, 4, *ABORT_BY_USER), socket.MSG_DONTWAIT)
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)

    def send_release_response(self) -> None:
        """Answer an A-RELEASE-RQ."""
        self.send(struct.pack(">BxLL", PduType.RELEASE_RP, 4, 0))

    def send_release_request(self) -> None:
        """Ask for the association's release."""
        self.send(struct.pack(">BxLL", PduType.RELEASE_RQ, 4, 0))

    def close(self, patience_s: float = 0.0) -> None:
        """Close the connection.

        Whoever answered last gives the peer patience_s to close first (the ARTIM timer of PS3.8 9.2, Sta13): closed
        at once, a rejection may never be read.
        """
        ends = clock.monotonic_s() + patience_s
        try:
            while (left := ends - clock.monotonic_s()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(65536):
                    break
            if isinstance(self.connection, ssl.SSLSocket):
                self.connection.settimeout(_CLOSE_S)
                self.connection = self.connection.unwrap()  # the peer learns that nothing was cut off
        except (OSError, ValueError):
            pass
        finally:
            self.connection.close()


def _nothing() -> None:
    """Nobody watches."""


def data_value_header(context_id: int, length: int, is_command: bool, is_last: bool) -> bytes:
    """The start of a P-DATA-TF with one presentation data value of `length` bytes (PS3.8 9.3.5, E.2)."""
    control = (1 if is_command else 0) | (2 if is_last else 0)
    return struct.pack(">BxLLBB", PduType.P_DATA_TF, length + 6, length + 2, context_id, control)
