"""What is mounted where, from the kernel's own table: asking it never waits for a server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import VolumeError, VolumeMissing
from pacs.storage.kinds import Kind

_MOUNTINFO = Path("/proc/self/mountinfo")
_NFS, _SMB = ("nfs", "nfs4"), ("cifs", "smb3")


@dataclass(frozen=True)
class Mount:
    """A mounted file system: where, of what type, from where, with which options."""

    folder: Path
    file_system: str
    source: str
    options: frozenset[str]


def mount_of(folder: Path, table: str | None = None) -> Mount:
    """The mount that a folder is on, by its path alone: symbolic links in it are not followed."""
    found: Mount | None = None
    for line in (_MOUNTINFO.read_text() if table is None else table).splitlines():
        mount = _parse(line)
        # A later line hides an earlier one at the same place.
        if folder.is_relative_to(mount.folder) and (found is None or mount.folder.is_relative_to(found.folder)):
            found = mount
    if found is None:
        raise VolumeMissing(f"Nothing is mounted that {folder} could be on. Give an absolute path.")
    return found


def kind_of(mount: Mount) -> Kind:
    """The kind of volume that a mounted file system makes."""
    if mount.file_system in _NFS:
        return "nfs"
    return "smb" if mount.file_system in _SMB else "local"


def require_share(kind: Kind, folder: Path, any_file_system: bool, table: str | None = None) -> Mount:
    """The mount of a share. Raise VolumeMissing if it is not mounted, VolumeError if its options would lose writes.

    any_file_system: it need not be NFS or SMB: of CephFS, GlusterFS or sshfs copies can be held as of SMB.
    """
    mount = mount_of(folder, table)
    if any_file_system:
        if mount.folder == Path("/"):
            raise VolumeMissing(f"Nothing is mounted at {folder}. Mount the share, or look at why it is not mounted.")
        return mount
    if kind_of(mount) != kind:
        raise VolumeMissing(
            f"No {kind.upper()} share is mounted at {folder}: it is on {mount.file_system}, mounted at {mount.folder}. "
            "Mount the share (docs/operate/shares.md)."
        )
    if kind == "nfs" and "hard" not in mount.options:
        raise VolumeError(
            f"The NFS share at {folder} is mounted soft: a write that fails there may look as if it had not. "
            "Mount it with hard,sync (docs/operate/shares.md)."
        )
    if kind == "smb" and "cache=loose" in mount.options:
        raise VolumeError(
            f"The SMB share at {folder} is mounted with cache=loose: what is read back may come from this machine's "
            "memory. Mount it with cache=none (docs/operate/shares.md)."
        )
    return mount


def _parse(line: str) -> Mount:
    # proc(5): 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    before, _, after = line.partition(" - ")
    fields, file_system = before.split(" "), after.split(" ")
    options = frozenset(fields[5].split(",")) | frozenset(file_system[2].split(","))
    return Mount(Path(_unescaped(fields[4])), file_system[0], _unescaped(file_system[1]), options)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
