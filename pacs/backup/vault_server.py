"""The door of a vault: an SSH server on a Unix socket, to which the vault's own ssh leads its owner.

It lets in who has one of the owner's keys, and gives SFTP (vault_sftp.py): no shell, no command, no forwarding, and
nothing of this machine but the one folder.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)

from pacs.backup.vault_sftp import Session, Sftp
from pacs.storage.vault import VaultFolder

log = logging.getLogger(__name__)

#: The name under which an owner logs in.
USER = "vault"
#: How many connections there are at once.
_CONNECTIONS_MAX = 16
#: How long who connects may take to log in [s].
_LOGIN_S = 30.0


class _Door(paramiko.ServerInterface):
    """Lets in who has one of the owner's keys, and to SFTP alone."""

    def __init__(self, keys: Collection[str]) -> None:
        self._keys = frozenset(keys)

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 - for anybody the same
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        is_known = username == USER and f"{key.get_name()} {key.get_base64()}" in self._keys
        return AUTH_SUCCESSFUL if is_known else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002 - whichever it is
        is_session = kind == "session"
        return OPEN_SUCCEEDED if is_session else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class VaultServer:
    """Serves one vault on a Unix socket, from `start` to `close`."""

    def __init__(
        self, folder: VaultFolder, path: Path, host_key: Path, keys: Callable[[], Collection[str]],
        on_seen: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """path: of the socket. keys: the owner's public keys, asked for at each connection. on_seen: it logged in."""
        self._folder, self._path, self._keys, self._on_seen = folder, path, keys, on_seen
        self._host_key = paramiko.ECDSAKey.from_private_key_file(str(host_key))
        self._places = threading.BoundedSemaphore(_CONNECTIONS_MAX)
        self._lock, self._transports = threading.Lock(), dict[paramiko.Transport, socket.socket]()
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Listen; return when connections are taken."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        self._path.chmod(0o600)
        listener.listen()
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="vault", daemon=True).start()

    def is_used(self) -> bool:
        """Whether the owner is connected now."""
        with self._lock:
            return any(each.is_authenticated() for each in self._transports)

    def close(self) -> None:
        """End every session; what was half written is nobody's."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            self._path.unlink(missing_ok=True)
        with self._lock:
            left = dict(self._transports)
        for transport, connection in left.items():
            with contextlib.suppress(OSError):  # also of one that is about to begin
                connection.shutdown(socket.SHUT_RDWR)
            transport.close()
        for transport in left:
            if transport.is_alive():
                transport.join(10)

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            with contextlib.suppress(OSError):
                connection, _address = listener.accept()
                if not self._places.acquire(blocking=False):
                    connection.close()
                    continue
                threading.Thread(target=self._serve, args=(connection,), name="vault", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        transport: paramiko.Transport | None = None
        try:
            transport = paramiko.Transport(connection)
            transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = _LOGIN_S
            transport.add_server_key(self._host_key)
            transport.set_subsystem_handler("sftp", Sftp, Session, self._folder)
            with self._lock:
                if self._listener is None:
                    return
                self._transports[transport] = connection
            transport.start_server(server=_Door(self._keys()))
            held = [transport.accept(_LOGIN_S)]
            if held[0] is None:
                return
            self._on_seen()
            while transport.is_active():
                # Each session has a thread of its own. A channel that nobody holds on to is closed by paramiko.
                held = [each for each in (*held, transport.accept(1)) if each is not None and not each.closed]
        except (paramiko.SSHException, EOFError, OSError) as error:
            log.debug("a connection to the vault ended: %s", error)
        finally:
            if transport is not None:
                transport.close()
                with self._lock:
                    self._transports.pop(transport, None)
            connection.close()
            self._places.release()
