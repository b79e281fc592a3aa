"""Listening sockets, and a thread for each connection: how many there may be, and how they end when we stop.

A peer that stalls, in a TLS handshake too, stalls its own thread only. Connections are counted by address, so that
one host cannot take the room of all others.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pacs import clock
from pacs.settings import Settings

log = logging.getLogger(__name__)

#: Connections that may be open beside the associations: those that have not asked yet, or are being closed.
CONNECTIONS_BESIDE_MAX = 128
#: How often an address that has too many is told of [s].
_TELL_EVERY_S = 60.0
_ADDRESSES_TOLD_MAX = 1000


@dataclass
class Opened:
    """A connection that was taken; its thread may set cut_off, which another thread calls to end it."""

    connection: socket.socket
    address: str
    is_tls: bool
    cut_off: Callable[[], None]


class Listener:
    """Takes connections, and gives each to `serve` on a thread of its own."""

    def __init__(
        self, settings: Settings, serve: Callable[[Opened], None], on_too_many: Callable[[str, str], None]
    ) -> None:
        """on_too_many(address, reason) is called now and then for an address whose connections are closed unheard."""
        self.settings, self._serve, self._on_too_many = settings, serve, on_too_many
        self._open: dict[threading.Thread, Opened] = {}
        self._of_address: Counter[str] = Counter()
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()
        self._wake, self._wake_end = socket.socketpair()
        self._thread: threading.Thread | None = None

    def start(self, plain: list[socket.socket], tls: list[socket.socket]) -> None:
        """Begin to accept on sockets that are bound and listening; return at once."""
        self._thread = threading.Thread(target=self._listen, args=(plain, tls), name="dicom-listener", daemon=True)
        self._thread.start()

    def stop(self, patience_s: float) -> None:
        """Accept no more; let connections end for patience_s, then cut them off.

        The listening sockets stay open for those who share them: systemd, and other receivers.
        """
        self._wake_end.send(b".")
        if self._thread is not None:
            self._thread.join()
        ends = clock.monotonic_s() + patience_s
        with self._lock:
            threads = list(self._open)
        for thread in threads:
            thread.join(max(0.0, ends - clock.monotonic_s()))
        with self._lock:
            left = dict(self._open)
        for opened in left.values():
            opened.cut_off()
        for thread in left:  # a moment to note that their associations are over
            thread.join(0.5)

    def _listen(self, plain: list[socket.socket], tls: list[socket.socket]) -> None:
        by_fd = {each.fileno(): (each, each in tls) for each in (*plain, *tls)}
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for listening, _is_tls in by_fd.values():
            listening.setblocking(False)  # another receiver may have taken the connection that woke us
            poll.register(listening, select.POLLIN)
        while True:
            for fd, _event in poll.poll():
                if fd not in by_fd:
                    return
                listening, is_tls = by_fd[fd]
                try:
                    connection, address = listening.accept()
                except BlockingIOError:
                    continue
                except OSError as error:  # no descriptor or memory left: that does not pass in a microsecond
                    log.error("a connection cannot be taken: %s", error.strerror)
                    self._wait_a_moment()
                    continue
                connection.setblocking(True)
                self._take(Opened(connection, str(address[0]), is_tls, lambda: None))

    def _wait_a_moment(self) -> None:
        select.select([self._wake], [], [], 0.1)

    def _take(self, opened: Opened) -> None:
        opened.cut_off = lambda: _shut(opened.connection)
        thread = threading.Thread(target=self._run, args=(opened,), name="association", daemon=True)
        with self._lock:
            problem = self._problem(opened.address)
            if problem is None:
                self._open[thread] = opened
                self._of_address[opened.address] += 1
        if problem is not None:
            opened.connection.close()
            self._tell(opened.address, problem)
            return
        try:
            thread.start()
        except RuntimeError:
            log.error("a connection cannot be served: there is no thread left", extra={"peer": opened.address})
            opened.connection.close()
            self._forget(thread, opened)

    def _problem(self, address: str) -> str | None:
        if len(self._open) >= self.settings.associations_max + CONNECTIONS_BESIDE_MAX:
            return f"{len(self._open)} connections are open, more than associations_max allows for"
        if self._of_address[address] >= self.settings.connections_per_address_max:
            return f"it has {self._of_address[address]} connections open, as many as connections_per_address_max allows"
        return None

    def _tell(self, address: str, problem: str) -> None:
        now = clock.monotonic_s()
        if now - self._told.get(address, float("-inf")) < _TELL_EVERY_S:
            return
        if len(self._told) >= _ADDRESSES_TOLD_MAX:
            self._told.clear()
        self._told[address] = now
        self._on_too_many(address, f"Connections of {address} are closed unheard: {problem}.")

    def _run(self, opened: Opened) -> None:
        try:
            self._serve(opened)
        except Exception:
            log.exception("a connection failed unforeseen", extra={"peer": opened.address})
        finally:
            opened.connection.close()
            self._forget(threading.current_thread(), opened)

    def _forget(self, thread: threading.Thread, opened: Opened) -> None:
        with self._lock:
            del self._open[thread]
            self._of_address[opened.address] -= 1
            if not self._of_address[opened.address]:
                del self._of_address[opened.address]


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
