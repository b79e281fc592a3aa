"""Whether a share is mounted where it should be, and in a way that loses nothing. Asks the kernel, never the share."""

from __future__ import annotations

from pathlib import Path

from pacs.errors import VolumeError, VolumeMissing
from pacs.storage.kinds import Kind
from pacs.storage.mounts import Mount, mount_of


def require_share(kind: Kind, folder: Path, any_file_system: bool = False) -> Mount:
    """The mount of a share. Raise VolumeMissing if it is not mounted, VolumeError if its options would lose writes.

    any_file_system: it need not be NFS or SMB; of CephFS, GlusterFS or sshfs copies can be held as of SMB.
    """
    mount = mount_of(folder)
    if mount.mount_point == "/" or (mount.kind != kind and not any_file_system):
        raise VolumeMissing(
            f"No {kind.upper()} share is mounted at {folder}, which is on {mount.file_system} at {mount.mount_point}. "
            "Mount it, or look at why it is not mounted (docs/operate/shares.md)."
        )
    if mount.kind == "nfs" and "hard" not in mount.options:
        raise VolumeError(
            f"The NFS share at {folder} is mounted soft: a write that fails there may look as if it had not. "
            "Mount it with hard,sync (docs/operate/shares.md)."
        )
    if mount.kind == "smb" and "cache=loose" in mount.options:
        raise VolumeError(
            f"The SMB share at {folder} is mounted with cache=loose: what is read back may come from this machine's "
            "memory. Mount it with cache=none (docs/operate/shares.md)."
        )
    return mount
