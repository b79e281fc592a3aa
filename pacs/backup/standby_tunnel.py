"""The way to the archive's database: a socket on this machine that an ssh carries to the socket of the twin's server.

Port 22 of the twin is all that is needed; nothing listens on a port. The twin lets this key reach sockets and files as
its service's user, and PostgreSQL knows that user.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from pathlib import Path

from pacs import clock
from pacs.backup.ssh_process import SshProcess
from pacs.backup.standby_files import StandbyFiles, Twin
from pacs.errors import StandbyError
from pacs.settings import Settings

log = logging.getLogger(__name__)

#: How long a tunnel may take to stand [s].
_PATIENCE_S = 20.0
_SOCKET = ".s.PGSQL.5432"


def tunnel_folder(settings: Settings) -> Path:
    """Where the near end's socket is: on the appliance in a folder of its own, as PostgreSQL's user comes there.

    Its name is short: a socket's path has a bound.
    """
    if settings.http_socket is not None:
        return settings.runtime_folder.with_name(f"{settings.runtime_folder.name}-standby")
    return settings.runtime_folder / "p"


def archive_conninfo(settings: Settings) -> str:
    """The connection string of the archive's server, through the tunnel."""
    return f"host={tunnel_folder(settings)} port=5432 user=pacs dbname=postgres"


class Tunnel:
    """An ssh that carries a socket. For one thread, which must outlive it: the ssh ends with that."""

    def __init__(self, data: Path, settings: Settings, twin: Twin) -> None:
        self._files, self._twin = StandbyFiles(data), twin
        self._socket = tunnel_folder(settings) / _SOCKET
        self._ssh = SshProcess(
            self._files.login(twin), ("StreamLocalBindUnlink=yes", "StreamLocalBindMask=0111"),
            ("-L", f"{self._socket}:{twin.database}"),
        )  # fmt: skip

    def __enter__(self) -> Tunnel:
        self.start()
        ends_s, why = clock.monotonic_s() + _PATIENCE_S, ""
        while not self.is_up():
            is_over = clock.monotonic_s() > ends_s
            if is_over or not self.is_running():
                why = self.close() or why
                if is_over:
                    raise StandbyError(
                        f"{self._twin.user}@{self._twin.host}:{self._twin.port} lets nobody through to its database "
                        f"({why or 'it does not answer'}). Is it on, and was the pairing text of this node given there?"
                    )
                time.sleep(1)  # the firewalls of both have learnt a moment ago that there is a twin
                self.start()
            time.sleep(0.05)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin; whether it stands `is_up` says."""
        if not self._socket.parent.exists():
            self._socket.parent.mkdir(parents=True)
            self._socket.parent.chmod(0o755)  # PostgreSQL's user comes through here, whatever our umask is
        self._ssh.start()

    def is_running(self) -> bool:
        """Whether the ssh runs yet."""
        return self._ssh.is_running()

    def is_up(self) -> bool:
        """Whether the near end takes connections."""
        if not self.is_running():
            return False
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(1)
            probe.connect(str(self._socket))
            return True
        return False

    def close(self) -> str:
        """End it; return what it said last."""
        said = self._ssh.close()
        with contextlib.suppress(FileNotFoundError):
            self._socket.unlink()
        return said


def answers(twin: Twin, patience_s: float = 5.0) -> bool:
    """Whether the twin's machine answers: its SSH server, at all."""
    with contextlib.suppress(OSError), socket.create_connection((twin.host, twin.port), patience_s) as connection:
        connection.settimeout(patience_s)
        return connection.recv(4) == b"SSH-"
    return False
