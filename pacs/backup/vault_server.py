"""What a vault gives to the appliance whose repository it keeps: SFTP on a Unix socket, to which it has dialled itself.

The owner may read everything of its repository, write new files, and remove, rename or replace what is there: then the
vault keeps what was (pacs/storage/vault.py). There is no shell, no command, no forwarding, no link, and nothing of this
machine but the one folder. A file is synced before its writer hears that it was closed, a name before it was given.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import paramiko
from paramiko.sftp import (
    CMD_CLOSE,
    CMD_EXTENDED,
    CMD_EXTENDED_REPLY,
    SFTP_FAILURE,
    SFTP_NO_SUCH_FILE,
    SFTP_OK,
    SFTP_OP_UNSUPPORTED,
    SFTP_PERMISSION_DENIED,
)

from pacs.storage import durable
from pacs.storage.vault import VaultFolder

log = logging.getLogger(__name__)

#: The name under which an owner logs in.
USER = "vault"
#: How many connections there are at once.
_CONNECTIONS_MAX = 16
#: How long who connects may take to log in [s].
_LOGIN_S = 30.0


class _Handle(paramiko.SFTPHandle):
    """An open file."""

    def __init__(self, fd: int, path: Path, is_writing: bool) -> None:
        super().__init__()
        self._fd, self._path, self._is_writing = fd, path, is_writing

    def read(self, offset: int, length: int) -> Any:
        return _answered(lambda: os.pread(self._fd, length, offset))

    def write(self, offset: int, data: bytes) -> int:
        if not self._is_writing:
            return SFTP_PERMISSION_DENIED

        def put() -> None:
            done = 0
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], offset + done)

        return _status(put)

    def stat(self) -> Any:
        return _answered(lambda: paramiko.SFTPAttributes.from_stat(os.fstat(self._fd)))

    def chattr(self, attr: Any) -> int:
        """Its size may be set while it is written; times and rights are ours, and are not said to be refused."""
        if attr._flags & attr.FLAG_SIZE:
            return _status(lambda: os.ftruncate(self._fd, attr.st_size)) if self._is_writing else SFTP_PERMISSION_DENIED
        return SFTP_OK

    def sync(self) -> int:
        """A file that cannot be synced is none: it goes, so that nobody takes it for one."""
        if not self._is_writing:
            return SFTP_OK
        status = _status(lambda: durable.fsync_fd(self._fd))
        if status != SFTP_OK:
            with contextlib.suppress(OSError):
                self._path.unlink()
        return status

    def finish(self) -> int:
        """Sync and close; once more does nothing."""
        fd = self._fd
        if fd < 0:
            return SFTP_OK
        status = self.sync()
        self._fd = -1
        return max(status, _status(lambda: os.close(fd)))

    def close(self) -> None:
        self.finish()


class _Session(paramiko.SFTPServerInterface):
    """What an SFTP session may do."""

    def __init__(self, server: paramiko.ServerInterface, folder: VaultFolder) -> None:
        super().__init__(server)
        self._folder = folder
        #: Made in this session, and not given their names yet.
        self._young: set[Path] = set()

    def open(self, path: str, flags: int, attr: Any) -> Any:  # noqa: ARG002 - paramiko calls it so
        def opened() -> _Handle:
            found = self._folder.path(path)
            if flags & os.O_ACCMODE == os.O_RDONLY:
                return _Handle(os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), found, False)
            if not flags & os.O_CREAT:
                raise PermissionError(errno.EACCES, "nothing is changed in place")
            if found.exists() and (flags & os.O_EXCL or not flags & os.O_TRUNC):
                raise FileExistsError(errno.EEXIST, "it is there")
            self._forget(found)
            fd = self._folder.create(found)
            self._young.add(found)
            return _Handle(fd, found, True)

        return _answered(opened)

    def _forget(self, path: Path) -> None:
        """One that this session has begun and not finished is nobody's."""
        if path in self._young:
            self._young.discard(path)
            path.unlink(missing_ok=True)

    def remove(self, path: str) -> int:
        def removed() -> None:
            found = self._folder.path(path)
            if found in self._young:
                self._forget(found)
            else:
                self._folder.put_aside(found)

        return _status(removed)

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        def renamed() -> None:
            old, new = self._folder.path(oldpath), self._folder.path(newpath)
            self._folder.rename(old, new, old in self._young)
            self._young -= {old, new}

        return _status(renamed)

    def rename(self, oldpath: str, newpath: str) -> int:
        """By version 3 of the protocol it replaces nothing."""
        if isinstance(self.lstat(newpath), paramiko.SFTPAttributes):
            return SFTP_FAILURE
        return self.posix_rename(oldpath, newpath)

    def mkdir(self, path: str, attr: Any) -> int:  # noqa: ARG002 - rights are ours
        def made() -> None:
            found = self._folder.path(path)
            found.mkdir(0o750)
            durable.fsync_folder(found.parent)

        return _status(made)

    def rmdir(self, path: str) -> int:
        def removed() -> None:
            found = self._folder.path(path)
            if found == self._folder.root:
                raise PermissionError(errno.EACCES, "it stays")
            found.rmdir()

        return _status(removed)

    def lstat(self, path: str) -> Any:
        if path.strip("/") == "":
            return paramiko.SFTPAttributes.from_stat(self._folder.place.lstat())
        return _answered(lambda: paramiko.SFTPAttributes.from_stat(self._folder.path(path).lstat()))

    stat = lstat  # there are no links

    def list_folder(self, path: str) -> Any:
        def listed() -> list[Any]:
            with os.scandir(self._folder.path(path)) as found:
                return [paramiko.SFTPAttributes.from_stat(each.stat(follow_symlinks=False), each.name)
                        for each in found]  # fmt: skip

        return _answered(listed)

    def chattr(self, path: str, attr: Any) -> int:
        if attr._flags & attr.FLAG_SIZE:
            return SFTP_PERMISSION_DENIED
        return SFTP_OK if isinstance(self.lstat(path), paramiko.SFTPAttributes) else SFTP_NO_SUCH_FILE

    def room(self, path: str) -> os.statvfs_result:
        """The file system's room. Raise OSError."""
        return os.statvfs(self._folder.path(path))


class _Sftp(paramiko.SFTPServer):
    """paramiko's server, with what OpenSSH's has beside the protocol: a file synced, how much room there is."""

    def start_subsystem(self, name: str, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        super().start_subsystem(name, transport, channel)
        with contextlib.suppress(paramiko.SSHException, OSError):
            channel.send_exit_status(0)  # else OpenSSH's ssh, which restic uses, takes the end for a failure

    def _process(self, t: int, request_number: int, msg: paramiko.Message) -> None:
        if t not in (CMD_CLOSE, CMD_EXTENDED):
            super()._process(t, request_number, msg)  # type: ignore[misc]
            return
        begun, name = len(msg.get_so_far()), msg.get_binary()  # a handle, or which extension
        if t == CMD_CLOSE and (handle := self.file_table.pop(name, None)) is not None:
            self._send_status(request_number, handle.finish())
        elif t == CMD_EXTENDED and name == b"fsync@openssh.com":
            found = self.file_table.get(msg.get_binary())
            self._send_status(request_number, found.sync() if found is not None else SFTP_FAILURE)
        elif t == CMD_EXTENDED and name == b"statvfs@openssh.com":
            self._send_room(request_number, msg.get_text())
        elif t == CMD_EXTENDED and name != b"posix-rename@openssh.com":
            self._send_status(request_number, SFTP_OP_UNSUPPORTED)
        else:
            again = paramiko.Message(msg.asbytes())
            again.get_bytes(begun)
            super()._process(t, request_number, again)  # type: ignore[misc]

    def _send_room(self, request_number: int, path: str) -> None:
        found = _answered(lambda: self.server.room(path))  # type: ignore[attr-defined]
        if isinstance(found, int):
            self._send_status(request_number, found)
            return
        answer = paramiko.Message()
        answer.add_int(request_number)
        for value in (found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files,
                      found.f_ffree, found.f_favail, 0, 0, found.f_namemax):  # fmt: skip
            answer.add_int64(value)
        self._send_packet(CMD_EXTENDED_REPLY, answer)  # type: ignore[attr-defined]


class _Door(paramiko.ServerInterface):
    """Lets in who has one of the owner's keys, and to SFTP alone."""

    def __init__(self, keys: Collection[str]) -> None:
        self._keys = frozenset(keys)

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 - for anybody the same
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        is_known = username == USER and f"{key.get_name()} {key.get_base64()}" in self._keys
        return paramiko.AUTH_SUCCESSFUL if is_known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002 - whichever it is
        is_session = kind == "session"
        return paramiko.OPEN_SUCCEEDED if is_session else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


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
        self._lock, self._transports = threading.Lock(), set[paramiko.Transport]()
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
            left = list(self._transports)
        for each in left:
            each.close()
        for each in left:
            each.join(10)

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
            transport.set_subsystem_handler("sftp", _Sftp, _Session, self._folder)
            with self._lock:
                self._transports.add(transport)
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
                    self._transports.discard(transport)
            connection.close()
            self._places.release()


def _answered(call: Callable[[], Any]) -> Any:
    """What a call returns, or the status of the protocol that its error is."""
    try:
        return call()
    except OSError as error:
        return paramiko.SFTPServer.convert_errno(error.errno or errno.ENOENT)


def _status(call: Callable[[], None]) -> int:
    found = _answered(call)
    return found if isinstance(found, int) else SFTP_OK
