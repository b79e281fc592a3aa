"""Sessions with an SFTP server: paramiko, a connection for many threads, and its errors as errors of the tree.

The server is known by its host key, which is asked for when the place is added and compared ever after. What goes wrong
on the way there (network, login, a server that went away) is VolumeMissing, which says nothing of a copy.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import socket
import stat
import threading
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paramiko

from pacs.errors import NotFound, PacsError, SettingsError, UsageError, VolumeFailed, VolumeMissing

#: How long a server may take to answer [s].
TIMEOUT_S = 30.0
#: How many sessions there are at once: OpenSSH lets ten be in a connection.
SESSIONS_MAX = 6
_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "host_key": str, "timeout_s": (int, float), "home_tier": int,
    # Of a place that another appliance dials us from (pacs/backup/pulled.py): its key, and its address.
    "pulled_by": str, "pulled_from": str,
}  # fmt: skip
#: Host keys in the order in which libssh2 asks for them, which pgBackRest does (hostkey_methods in libssh2's hostkey.c)
#: and cannot be told otherwise: the one that is known must be the one that it will be shown.
_HOST_KEYS = (
    "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
_KEYS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


@dataclass(frozen=True)
class Server:
    """Where a place is: sftp://user@host:port/path. A path that begins with ~/ is below the user's own folder."""

    user: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, location: str) -> Server:
        """The server that a location names. Raise UsageError."""
        try:
            parts = urlsplit(location)
            if parts.scheme != "sftp" or not parts.hostname or not parts.username or len(parts.path) < 2:
                raise ValueError
            if parts.password or parts.query or parts.fragment:
                raise ValueError
            path = unquote(parts.path)
            return cls(
                unquote(parts.username), parts.hostname, parts.port or 22,
                path.removeprefix("/~/") if path.startswith("/~/") else path.rstrip("/"),
            )  # fmt: skip
        except ValueError:
            raise UsageError(
                f"{location} is no place. Write it as sftp://user@host:port/path; without a password."
            ) from None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


def require_server(location: str) -> None:
    """Raise UsageError unless a location names a place on a server."""
    Server.of(location)


def require_options(options: Mapping[str, Any]) -> None:
    """Raise SettingsError unless these are options of a place on an SFTP server."""
    for name, value in options.items():
        kinds = _OPTIONS.get(name)
        if kinds is None or not isinstance(value, kinds) or isinstance(value, bool):
            raise SettingsError(
                f"A place on an SFTP server has no option {name} = {value!r}. It knows {', '.join(_OPTIONS)}."
            )


def read_login(path: Path) -> Mapping[str, str]:
    """A login from a TOML file: `password`, or `private_key` in the text of OpenSSH's files.

    Raise SettingsError if it is missing, no such file, or can be read by others than its owner.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SettingsError(f"{path} can be read by others. Say `chmod 600 {path}`.")
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing: it holds password or private_key. Write it, mode 0600.") from None
    except (OSError, ValueError) as error:  # the parser's message may quote a line of the file
        raise SettingsError(f"{path} cannot be read as TOML ({type(error).__name__}). Correct it.") from None
    if found.keys() not in ({"password"}, {"private_key"}) or not all(
        isinstance(value, str) for value in found.values()
    ):
        raise SettingsError(f"{path} holds either password or private_key, in quotes, and nothing else. Correct it.")
    return found


def host_key_of(location: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """The host key that a server shows now, as a line of OpenSSH's known_hosts has it, and its fingerprint."""
    server = Server.of(location)
    with _translated(server):
        transport = _reached(server, options)
        try:
            transport.get_security_options().key_types = _HOST_KEYS
            transport.start_client(timeout=options.get("timeout_s", TIMEOUT_S))
            key = transport.get_remote_server_key()
        finally:
            transport.close()
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} {key.get_base64()}", f"SHA256:{digest}"


class Client:
    """A connection to a server, made anew when it broke. For use by many threads."""

    def __init__(self, location: str, options: Mapping[str, Any], credentials: Path) -> None:
        """Nothing is connected yet. Raise UsageError or SettingsError."""
        require_options(options)
        self.server, self._options, self._credentials = Server.of(location), options, credentials
        self._lock = threading.Lock()
        self._transport: paramiko.Transport | None = None
        self._idle: list[paramiko.SFTPClient] = []
        self._places = threading.BoundedSemaphore(SESSIONS_MAX)

    @contextlib.contextmanager
    def session(self) -> Iterator[paramiko.SFTPClient]:
        """A session for the block. What goes wrong in it is raised as an error of the tree."""
        with self._places, _translated(self.server, self._drop):
            session = self._taken()
            try:
                yield session
            except BaseException as error:
                if not isinstance(error, FileNotFoundError):  # requests may be under way in it
                    session.close()
                raise
            finally:
                self._give_back(session)

    def close(self) -> None:
        """Let go of the connection; once more does nothing."""
        self._drop()

    def _taken(self) -> paramiko.SFTPClient:
        with self._lock:
            while self._idle:
                session = self._idle.pop()
                if not _is_closed(session):
                    return session
            if self._transport is None or not self._transport.is_active():
                self._transport = self._logged_in()
            made = paramiko.SFTPClient.from_transport(self._transport)
        if made is None:
            raise paramiko.SSHException("no session")
        channel = made.get_channel()
        if channel is not None:
            channel.settimeout(self._options.get("timeout_s", TIMEOUT_S))
        return made

    def _give_back(self, session: paramiko.SFTPClient) -> None:
        if not _is_closed(session):
            with self._lock:
                self._idle.append(session)

    def _drop(self) -> None:
        with self._lock:
            transport, self._transport, self._idle = self._transport, None, []
        if transport is not None:
            transport.close()

    def _logged_in(self) -> paramiko.Transport:
        login, known = read_login(self._credentials), str(self._options.get("host_key", ""))
        transport = _reached(self.server, self._options)
        try:
            if known:  # the server may have several: this is the one that is known
                transport.get_security_options().key_types = _signatures_of(known.split()[0])
            transport.start_client(timeout=self._options.get("timeout_s", TIMEOUT_S))
            shown = transport.get_remote_server_key()
            if f"{shown.get_name()} {shown.get_base64()}" != known:
                raise VolumeMissing(
                    f"The server {self.server} is not the one that was added: it shows another host key. Nothing was "
                    "sent to it. If it was set up anew, add the repository again."
                )
            if "password" in login:
                transport.auth_password(self.server.user, login["password"])
            else:
                transport.auth_publickey(self.server.user, _private_key(login["private_key"]))
            transport.set_keepalive(15)
        except BaseException:
            transport.close()
            raise
        return transport


def _reached(server: Server, options: Mapping[str, Any]) -> paramiko.Transport:
    timeout_s = options.get("timeout_s", TIMEOUT_S)
    made = paramiko.Transport(socket.create_connection((server.host, server.port), timeout_s))
    made.banner_timeout = made.auth_timeout = timeout_s
    return made


def _signatures_of(key_type: str) -> tuple[str, ...]:
    """The ways in which a host key of a type signs."""
    return ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)


def _private_key(text: str) -> paramiko.PKey:
    for kind in _KEYS:
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            raise SettingsError("The private key is protected by a pass phrase. Give one without.") from None
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    raise SettingsError("The private key is none that is known here: Ed25519, ECDSA or RSA, as ssh-keygen makes them.")


def _is_closed(session: paramiko.SFTPClient) -> bool:
    channel = session.get_channel()
    return channel is None or channel.closed


@contextlib.contextmanager
def _translated(server: Server, when_lost: Any = lambda: None) -> Iterator[None]:
    """Errors of the block as errors of the tree. when_lost is called if it was the way there."""
    try:
        yield
    except PacsError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"A file is missing on {server}. Run `pacs reconcile run`.") from error
    except paramiko.AuthenticationException as error:
        when_lost()
        raise VolumeMissing(f"{server} refuses the login. Correct the password or key of the repository.") from error
    except (paramiko.SSHException, EOFError, TimeoutError) as error:
        when_lost()
        raise VolumeMissing(
            f"{server} does not answer ({type(error).__name__}). Look at it, and at the network."
        ) from error
    except OSError as error:
        if error.errno in (None, errno.EACCES, errno.EPERM):  # what the server said of a file
            raise VolumeFailed(
                f"{server} refuses: {error}. Is its disk full, or is the folder another user's?"
            ) from error
        when_lost()
        raise VolumeMissing(f"{server} cannot be reached: {error.strerror}. Look at it, and at the network.") from error
