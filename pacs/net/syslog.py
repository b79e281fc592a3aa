"""Syslog over TLS (RFC 5425), as audit record repositories take it (PS3.15 A.6).

Syslog acknowledges nothing. A connection is therefore closed in order after what was sent, and the other side's end
awaited: only what was sent on a connection that ended so counts as sent. The rest is sent again, so a receiver may see
a message twice: its structured data say which line of which log it is.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pacs import clock
from pacs.errors import PacsError
from pacs.model.syslog import framed

#: RFC 5425 4.1
PORT = 6514
#: How long the receiver may take for a step [s].
_TIMEOUT_S = 20.0


class SyslogFailed(PacsError):
    """The syslog receiver did not take what was sent. It is tried again."""

    exit_code = 4


@dataclass(frozen=True)
class Receiver:
    """A receiver of syslog over TLS. certificate_authority: PEM of who signed its certificate, if no public one;
    certificate: PEM of our own certificate and its key, if it wants one."""

    host: str
    port: int = PORT
    certificate_authority: Path | None = None
    certificate: Path | None = None

    @classmethod
    def parse(cls, text: str, **files: Path | None) -> Receiver:
        """From HOST, HOST:PORT or [ADDRESS]:PORT. Raise ValueError."""
        host, _, port = text.rpartition(":") if text.rpartition(":")[2].isdecimal() else (text, "", "")
        if text.endswith("]"):
            host, port = text, ""
        number = int(port) if port else PORT
        if not host or not 0 < number < 65536:
            raise ValueError(text)
        return cls(host.strip("[]"), number, **files)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def send(receiver: Receiver, messages: Iterable[bytes]) -> int:
    """Send messages over one connection; return how many. All of them were taken, as far as that can be known, or
    SyslogFailed is raised: then any of them may have been."""
    count = 0
    try:
        with connected(receiver) as stream:
            for each in messages:
                stream.sendall(framed(each))
                count += 1
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SyslogFailed(f"The syslog receiver {receiver}: {str(reason).rstrip('.')}.") from error
    return count


@contextlib.contextmanager
def connected(receiver: Receiver) -> Iterator[ssl.SSLSocket]:
    """A stream to a receiver, closed in order at the end of the block. Raise OSError: then it may have got nothing."""
    authority = receiver.certificate_authority
    context = ssl.create_default_context(cafile=str(authority) if authority is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if receiver.certificate is not None:
        context.load_cert_chain(receiver.certificate)
    with (
        socket.create_connection((receiver.host, receiver.port), _TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=receiver.host) as stream,
    ):
        yield stream
        _close(stream)


def _close(stream: ssl.SSLSocket) -> None:
    """Say that nothing more comes, and wait until the receiver has ended, too: then it has read all. One that died
    resets the connection, which is an error; one that keeps it open has read what it was given for so long."""
    ends = clock.monotonic_s() + _TIMEOUT_S
    try:
        plain = stream.unwrap()
    except TimeoutError:
        return
    except ssl.SSLError as error:
        if "SHUTDOWN" in str(error).upper() or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return  # it closed without a word of TLS, as many do, and in order
        raise
    with contextlib.suppress(TimeoutError):
        plain.shutdown(socket.SHUT_WR)
        while clock.monotonic_s() < ends and plain.recv(4096):
            pass
