"""What is mounted where: which kind of file system a folder is on, and whether it is one that a volume may be on.

From /proc/self/mountinfo (proc(5)); nothing here touches the file system itself, which may hang.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import UsageError
from pacs.storage.kinds import Kind

MOUNTINFO = Path("/proc/self/mountinfo")

#: File systems that keep what was fsynced over a loss of power, tell of errors, and take renames as one step.
_LOCAL = {"ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"}
_NFS = {"nfs", "nfs4"}
_SMB = {"cifs", "smb3"}
_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


@dataclass(frozen=True)
class Mount:
    """A mounted file system: where, its type, what is mounted, and the options of mount and file system."""

    mount_point: str
    file_system: str
    source: str
    options: frozenset[str]
    #: Whether the file system itself cannot be written to, by nobody: as the kernel makes it after an error. A mount
    #: of it may be read-only for a service alone, in its sandbox.
    is_file_system_read_only: bool = False

    @property
    def kind(self) -> Kind | None:
        """The kind of volume that may be on it; None if none may."""
        if self.file_system in _LOCAL:
            return "local"
        if self.file_system in _NFS:
            return "nfs"
        return "smb" if self.file_system in _SMB else None

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written to it."""
        return "ro" in self.options

    @property
    def why_it_may_not_receive(self) -> str:
        """Why no object may be received on it, and what to change; empty if it may."""
        if self.kind == "nfs":
            missing = [each for each in ("hard", "sync") if each not in self.options]
            if missing:
                return (
                    f"{self.source} is mounted without {' and '.join(missing)}, so an answer of success would promise "
                    f"what the server may not have. Mount it with `-o hard,sync`, or add it to tier 2 or 3."
                )
        if self.kind == "smb":
            return "An SMB share cannot say when bytes are safe on its server. Add it to tier 2 or 3."
        return ""


def mounts() -> list[Mount]:
    """Everything that is mounted, in the order of its mounting."""
    found = []
    for line in MOUNTINFO.read_text("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields, (file_system, source, super_options, *_) = before.split(), after.split()
        of_file_system = frozenset(super_options.split(","))
        options = frozenset(fields[5].split(",")) | of_file_system
        # Of a bind mount that is read-only the file system is not: what the mount says counts.
        if "rw" in fields[5].split(",") and "ro" not in of_file_system:
            options -= {"ro"}
        found.append(Mount(_plain(fields[4]), file_system, _plain(source), options, "ro" in of_file_system))
    return found


def mount_of(folder: Path) -> Mount:
    """What a folder is on: the last mount at the longest mount point above it."""
    wanted = folder.absolute()
    above = [each for each in mounts() if wanted.is_relative_to(each.mount_point)]
    return max(enumerate(above), key=lambda item: (len(Path(item[1].mount_point).parts), item[0]))[1]


def require_suitable(mount: Mount, folder: Path) -> Kind:
    """The kind of volume that may be in a folder there. Raise UsageError, which says what to do, if none may."""
    kind, name = mount.kind, mount.file_system
    if mount.is_read_only:
        raise UsageError(f"{folder} is on a file system that is mounted read-only. Mount it for writing.")
    if kind is not None:
        return kind
    if name in _MEMORY:
        raise UsageError(f"{folder} is in memory ({name}) and does not outlive a restart. Mount a disk there.")
    if name.startswith("fuse"):
        what = name.partition(".")[2] or "some program's"
        raise UsageError(
            f"{folder} is a FUSE file system ({what}): whether bytes are safe is up to a program, and cannot be known. "
            "Mount NFS or SMB itself, or add an S3 bucket as a volume."
        )
    raise UsageError(
        f"{folder} is on a file system of type {name}, which does not keep what a volume promises. Use ext4 or xfs."
    )


def _plain(text: str) -> str:
    """A field of mountinfo without its escapes: spaces and the like are octal there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
