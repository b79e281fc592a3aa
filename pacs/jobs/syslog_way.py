"""Alerts by syslog (RFC 5424): over TLS (RFC 5425), TCP with octet counting (RFC 6587 3.4.1), or UDP (RFC 5426).

A stream is closed in order after what was sent, and its end awaited: a receiver that was gone is found out that way, as
syslog itself acknowledges nothing. UDP promises nothing at all.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pacs.jobs.alert_settings import Syslog, certificate_file
from pacs.jobs.alert_way import Alert, AlertFailed, host
from pacs.model.syslog import Level, framed, message

#: How long the server may take to connect, and to close [s].
TIMEOUT_S, CLOSE_S = 20.0, 3.0
_LEVELS = {"critical": Level.CRITICAL, "unknown": Level.ERROR, "warning": Level.WARNING, "ok": Level.INFORMATIONAL}


class SyslogWay:
    """The syslog server that the settings name."""

    name = "syslog"
    acknowledges = False

    def __init__(self, data: Path, settings: Syslog) -> None:
        self.data, self.settings = data, settings

    def compose(self, alert: Alert) -> bytes:
        """A message a matter, a line each; of what says nothing of one check a single one."""
        if alert.kind != "alert":
            level = Level.INFORMATIONAL
            return message(level, alert.at, host(), alert.kind, alert.title, {"severity": alert.severity})
        return b"\n".join(
            message(
                Level.NOTICE if each.is_over else _LEVELS[each.severity], alert.at, host(),
                "recovery" if each.is_over else "alert",
                f"{'well again: ' if each.is_over else ''}{each.name}: {each.message} {each.hint}".strip(),
                {"check": each.name, "severity": each.severity},
            )
            for each in alert.matters
        )  # fmt: skip

    @contextmanager
    def opened(self) -> Iterator[Callable[[bytes], None]]:
        """The server, connected."""
        where = (self.settings.host, self.settings.port_number)
        try:
            if self.settings.transport == "udp":
                yield lambda content: _send_datagrams(where, content)
                return
            with self._connected(where) as stream:
                yield lambda content: stream.sendall(b"".join(map(framed, content.split(b"\n"))))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise AlertFailed(f"{where[0]}, port {where[1]}: {str(reason).rstrip('.')}.") from error

    @contextmanager
    def _connected(self, where: tuple[str, int]) -> Iterator[socket.socket]:
        with socket.create_connection(where, TIMEOUT_S) as plain:
            if self.settings.transport == "tcp":
                yield plain
                plain.shutdown(socket.SHUT_WR)
                _await_end(plain)
                return
            signed_by = certificate_file(self.data, "syslog")
            context = ssl.create_default_context(cafile=str(signed_by) if signed_by.exists() else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            with context.wrap_socket(plain, server_hostname=where[0]) as wrapped:
                yield wrapped
                wrapped.settimeout(CLOSE_S)
                with suppress(TimeoutError, ssl.SSLError):  # many servers close without a word of TLS
                    wrapped.unwrap()


def _send_datagrams(where: tuple[str, int], content: bytes) -> None:
    family, kind, protocol, _name, address = socket.getaddrinfo(*where, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sending:
        for one in content.split(b"\n"):
            sending.sendto(one, address)


def _await_end(stream: socket.socket) -> None:
    """Wait until the peer has closed, too. One that is gone resets the connection, which is an error."""
    stream.settimeout(CLOSE_S)
    with suppress(TimeoutError):
        while stream.recv(4096):
            pass
