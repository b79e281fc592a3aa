"""The SFTP that a vault gives: everything of one folder is read, new files are written, nothing is changed in place.

What is removed, renamed or replaced the vault keeps (pacs/storage/vault.py). There are no links. A file is synced
before its writer hears that it was closed, a name before it was given.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
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


class _Handle(paramiko.SFTPHandle):
    """An open file."""

    def __init__(self, fd: int, path: Path, is_writing: bool) -> None:
        super().__init__()
        self._fd, self._path, self._is_writing = fd, path, is_writing

    def read(self, offset: int, length: int) -> Any:
        return _answered(lambda: os.pread(self._fd, length, offset))

    def write(self, offset: int, data: Any) -> int:
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


class Session(paramiko.SFTPServerInterface):
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


class Sftp(paramiko.SFTPServer):
    """paramiko's server, with what OpenSSH's has beside the protocol: a file synced, how much room there is."""

    def start_subsystem(self, name: str, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        super().start_subsystem(name, transport, channel)
        with contextlib.suppress(paramiko.SSHException, OSError):
            channel.send_exit_status(0)  # else OpenSSH's ssh, which restic uses, takes the end for a failure

    def _process(self, t: int, request_number: int, msg: paramiko.Message) -> None:
        sftp: Any = self  # what paramiko's stubs do not know of it
        if t not in (CMD_CLOSE, CMD_EXTENDED):
            sftp._process_as_ever(t, request_number, msg)
            return
        begun, name = len(msg.get_so_far()), msg.get_binary()  # a handle, or which extension
        if t == CMD_CLOSE and (handle := sftp.file_table.pop(name, None)) is not None:
            sftp._send_status(request_number, handle.finish())
        elif t == CMD_EXTENDED and name == b"fsync@openssh.com":
            found = sftp.file_table.get(msg.get_binary())
            sftp._send_status(request_number, found.sync() if found is not None else SFTP_FAILURE)
        elif t == CMD_EXTENDED and name == b"statvfs@openssh.com":
            self._send_room(request_number, msg.get_text())
        elif t == CMD_EXTENDED and name != b"posix-rename@openssh.com":
            sftp._send_status(request_number, SFTP_OP_UNSUPPORTED)
        else:
            again = paramiko.Message(msg.asbytes())
            again.get_bytes(begun)
            sftp._process_as_ever(t, request_number, again)

    def _process_as_ever(self, t: int, request_number: int, msg: paramiko.Message) -> None:
        super()._process(t, request_number, msg)  # type: ignore[misc]

    def _send_room(self, request_number: int, path: str) -> None:
        sftp: Any = self
        found = _answered(lambda: sftp.server.room(path))
        if isinstance(found, int):
            sftp._send_status(request_number, found)
            return
        answer = paramiko.Message()
        answer.add_int(request_number)
        for value in (found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files,
                      found.f_ffree, found.f_favail, 0, 0, found.f_namemax):  # fmt: skip
            answer.add_int64(value)
        sftp._send_packet(CMD_EXTENDED_REPLY, answer)


def _answered(call: Callable[[], Any]) -> Any:
    """What a call returns, or the status of the protocol that its error is."""
    try:
        return call()
    except OSError as error:
        return paramiko.SFTPServer.convert_errno(error.errno or errno.ENOENT)


def _status(call: Callable[[], None]) -> int:
    found = _answered(call)
    return found if isinstance(found, int) else SFTP_OK
