"""Looks into a finished system disk from outside: no boot, no loop device, no mount, and no root needed.

debugfs reads (and, once, writes) the ext4 file system of the first root slot straight in the raw disk's file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from packer.base import layout
from packer.errors import BuildError

_REMEDY = "Look whether it is a system disk of a finished build, and whether debugfs (e2fsprogs) is new enough."
_LOST_AND_FOUND = "/lost+found"


@dataclass(frozen=True)
class Entry:
    """One path of the root file system. `digest`: SHA-256 of a file's content, or where a link points to."""

    path: str
    mode: int
    uid: int
    gid: int
    size_bytes: int
    digest: str

    def line(self) -> str:
        """As a manifest has it: the path last, as it alone may hold blanks."""
        return f"{self.mode:06o} {self.uid} {self.gid} {self.size_bytes} {self.digest or '-'} {self.path}"

    @classmethod
    def of_line(cls, line: str) -> Entry:
        """What `line` gave. Raise ValueError."""
        mode, uid, gid, size_bytes, digest, path = line.split(" ", 5)
        return cls(path, int(mode, 8), int(uid), int(gid), int(size_bytes), "" if digest == "-" else digest)


@dataclass(frozen=True)
class Rootfs:
    """The root slot of a raw disk, and a copy of its files in a folder (owners and modes there mean nothing)."""

    disk: Path
    files: Path

    @property
    def place(self) -> str:
        """The file system as e2fsprogs' tools are told of it."""
        return _place(self.disk)

    def entries(self) -> list[Entry]:
        """Everything in it, by path."""
        found = [self._entry(path, fields) for path, fields in self._walk()]
        return sorted(found, key=lambda entry: entry.path)

    def text(self, path: str) -> str:
        """A file's text; links are followed, within the copy."""
        return self.where(path).read_text("utf-8", "replace")

    def where(self, path: str) -> Path:
        """Where the copy of a file or folder is, links followed. Raise BuildError if it leads out or nowhere."""
        place = Path("/")
        waiting = list(reversed(Path(path).parts[1:]))
        for _ in range(400):
            if not waiting:
                return self.files / place.relative_to("/")
            place = Path(os.path.normpath(place / waiting.pop()))
            here = self.files / place.relative_to("/")
            if here.is_symlink():
                target = Path(os.path.normpath(place.parent / here.readlink()))
                waiting += reversed(target.parts[1:])
                place = Path("/")
        raise BuildError(f"{path} leads round in circles on the disk.", _REMEDY)

    def write(self, path: str, source: Path, epoch_s: int) -> None:
        """Put a file into the disk, root's and for all to read, dated `epoch_s`. Its folder must be there."""
        source.chmod(0o644)
        commands = [f"set_current_time @{epoch_s}", f"rm {path}", f"write {source} {path}"]
        commands += [f"set_inode_field {path} {name} @{epoch_s}" for name in ("atime", "mtime", "ctime", "crtime")]
        _debugfs(self.disk, commands, writes=True)
        answer = subprocess.run(
            ["debugfs", "-R", f"cat {path}", self.place], capture_output=True, check=True, env=_environment()
        ).stdout
        if answer != source.read_bytes():  # debugfs ends with 0 whatever became of a command
            raise BuildError(f"{path} could not be written into the system disk.", _REMEDY)
        shutil.copyfile(source, self.where(path))

    def _walk(self) -> Iterator[tuple[str, list[str]]]:
        """Path and fields (inode, mode, user, group, name, size) of everything, level by level."""
        level = ["/"]
        while level:
            said = _debugfs(self.disk, [f'ls -p "{folder}"' for folder in level])
            level_below = []
            for folder, fields in _listed(said):
                path = f"{folder.rstrip('/')}/{fields[4]}"
                if path == _LOST_AND_FOUND:
                    continue
                yield path, fields
                if stat.S_ISDIR(int(fields[1], 8)):
                    level_below.append(path)
            level = level_below

    def _entry(self, path: str, fields: list[str]) -> Entry:
        mode, uid, gid = int(fields[1], 8), int(fields[2]), int(fields[3])
        copy = self.files / path.lstrip("/")
        if stat.S_ISLNK(mode):
            return Entry(path, mode, uid, gid, 0, quote(str(copy.readlink()), safe="/"))
        if stat.S_ISREG(mode):
            with copy.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return Entry(path, mode, uid, gid, copy.stat().st_size, digest)
        return Entry(path, mode, uid, gid, 0, "")


@contextlib.contextmanager
def open_rootfs(disk: Path, scratch: Path | None = None) -> Iterator[Rootfs]:
    """The first root slot of a raw disk. Its files are copied out, about 1 GiB, and gone at the end."""
    with tempfile.TemporaryDirectory(prefix="pacs-root-", dir=scratch) as folder:
        # As an ordinary user it says of each file that its owner can't be set: nobody asked.
        _debugfs(disk, [f"rdump / {folder}"])
        if not (Path(folder) / "etc/os-release").is_symlink():
            raise BuildError(f"{disk} has no system in its first root slot.", _REMEDY)
        try:
            yield Rootfs(disk, Path(folder))
        finally:
            _make_removable(Path(folder))


@contextlib.contextmanager
def as_raw(disk: Path, scratch: Path | None = None) -> Iterator[Path]:
    """A disk image of any format that qemu-img reads, as a raw file; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="pacs-raw-", dir=scratch) as folder:
        raw = Path(folder) / "disk.raw"
        command = ["qemu-img", "convert", "-O", "raw", str(disk), str(raw)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise BuildError(f"qemu-img can't read {disk}: {answer.stderr.strip()}", _REMEDY)
        yield raw


def partition_digest(disk: Path, start_mib: int, size_mib: int) -> str:
    """SHA-256 of a part of a raw disk: of its MiBs that are not all zeros and where they are. Holes are not read."""
    digest = hashlib.sha256()
    position, end = start_mib * layout.MIB, (start_mib + size_mib) * layout.MIB
    with disk.open("rb") as stream:
        while position < end:
            try:
                position = os.lseek(stream.fileno(), position, os.SEEK_DATA) // layout.MIB * layout.MIB
            except OSError:  # ENXIO: no data behind here
                break
            content = os.pread(stream.fileno(), layout.MIB, position)
            if position < end and any(content):
                digest.update((position - start_mib * layout.MIB).to_bytes(8))
                digest.update(content)
            position += layout.MIB
    return digest.hexdigest()


def _place(disk: Path) -> str:
    return f"{disk}?offset={layout.ROOT_A_START_MIB * layout.MIB}"


def _debugfs(disk: Path, commands: Sequence[str], *, writes: bool = False) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as script:
        script.write("\n".join(commands) + "\n")
        script.flush()
        answer = subprocess.run(
            ["debugfs", *(["-w"] if writes else []), "-f", script.name, _place(disk)],
            capture_output=True,
            check=False,
            env=_environment(),
        )
    if answer.returncode != 0:
        raise BuildError(f"debugfs can't read {disk}: {answer.stderr.decode('utf-8', 'replace').strip()}", _REMEDY)
    return answer.stdout.decode("utf-8", "surrogateescape")


def _environment() -> dict[str, str]:
    """Debian keeps debugfs where a user's PATH does not lead."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def _listed(said: str) -> Iterator[tuple[str, list[str]]]:
    """Folder and fields of each entry that `ls -p` told of; deleted ones have inode 0."""
    folder = ""
    for line in said.splitlines():
        if line.startswith("debugfs: ls -p "):
            folder = line.removeprefix("debugfs: ls -p ").strip('"')
        elif line.startswith("/"):
            fields = line.split("/")[1:]
            if fields[0] != "0" and fields[4] not in (".", ".."):
                yield folder, fields


def _make_removable(folder: Path) -> None:
    """Folders keep their modes, and some are closed to all but root."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o700)
