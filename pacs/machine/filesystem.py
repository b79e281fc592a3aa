"""File systems on whole disks: made, looked into, mounted, grown.

ext4 with its features pinned, so that every later image, and the one before, can mount what this one made. The end
of each disk is left free: encryption at rest comes later, in place, and its header needs that room.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.errors import VolumeError
from pacs.machine.commands import MachineError, output, run
from pacs.storage.mounts import mounts

RESERVE_BYTES = 32 << 20  # what `cryptsetup reencrypt --encrypt --reduce-device-size 32M` wants
BLOCK_BYTES = 4096
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,metadata_csum,sparse_super,"
    "large_file,huge_file,dir_nlink,extra_isize"
)
OPTIONS = "nodev,nosuid,noexec,noatime,errors=remount-ro"
_PRIVATE = Path("/run/pacs-machine/look")
# One inode for so many bytes. A compressed slice may have 60 kB, PostgreSQL's files are large, state is small.
_BYTES_PER_INODE = {"state": 16384}
_BYTES_PER_INODE_OF_OBJECTS = 32768


def make(device: str, role: str, fs_uuid: str) -> None:
    """Make an ext4 file system, labelled pacs-<role>, over whatever is on the device."""
    run(
        "mkfs.ext4",
        "-q",
        "-F",
        "-L",
        f"pacs-{role}",
        "-U",
        fs_uuid,
        "-O",
        FEATURES,
        "-b",
        str(BLOCK_BYTES),
        "-I",
        "256",
        "-i",
        str(_BYTES_PER_INODE.get(role, _BYTES_PER_INODE_OF_OBJECTS)),
        "-m",
        "1" if role == "state" else "0",
        "-e",
        "remount-ro",
        "-E",
        "nodiscard,lazy_itable_init=1,lazy_journal_init=0",
        device,
        str(_blocks_for(device)),
    )


@contextmanager
def looked_into(device: str, options: str) -> Iterator[Path]:
    """The device's file system, mounted at a private place while the block runs. Options: `ro`, `ro,noload`, `rw`.

    `ro` still replays the file system's journal after a loss of power; `ro,noload` writes nothing at all, and may
    not see what was written last.
    """
    _PRIVATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    run("mount", "-t", "ext4", "-o", f"{options},nodev,nosuid,noexec", device, str(_PRIVATE))
    try:
        yield _PRIVATE
    finally:
        run("umount", str(_PRIVATE))


def stop_looking() -> None:
    """Unmount what a start that was killed left at the private place."""
    while is_mounted(_PRIVATE):
        unmount(_PRIVATE)


def mount(device: str, mount_point: Path) -> None:
    """Check and mount a volume. A file system with damage that needs a person is left alone.

    `device` is where the survey found the volume's UUID a moment ago, on the disk itself. `mount UUID=...` would ask
    caches, which lag behind what is plugged in.
    """
    # -p: replays the journal and mends what is safe to mend; 1 and 2 mean it did.
    checked = run("e2fsck", "-p", device, accept=range(64))
    if checked.returncode >= 4:
        raise VolumeError(
            f"The file system on {device} is damaged: {' '.join(checked.stdout.split())[-300:]} "
            f"Make a copy of the disk, then: e2fsck -f {device}"
        )
    mount_point.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "ext4", "-o", OPTIONS, device, str(mount_point))


def mount_folder(folder: Path, mount_point: Path) -> None:
    """Show a folder of one volume at another place."""
    mount_point.mkdir(parents=True, exist_ok=True)
    run("mount", "--bind", str(folder), str(mount_point))


def unmount(mount_point: Path) -> None:
    """Undo `mount` or `mount_folder`."""
    run("umount", str(mount_point))


def is_mounted(mount_point: Path) -> bool:
    """Whether something is mounted exactly there. Asks the kernel alone: a share that hangs would not answer."""
    return any(each.mount_point == str(mount_point) for each in mounts())


def grow(device: str) -> bool:
    """Let a mounted file system fill its disk, but for the reserve. Return whether it grew."""
    wanted = _blocks_for(device)
    header = run("dumpe2fs", "-h", device).stdout
    lines = (line.partition(":") for line in header.splitlines())
    now = next((int(value) for name, _, value in lines if name == "Block count"), None)
    if now is None:
        raise MachineError(f"`dumpe2fs -h {device}` does not say how large the file system is.")
    if wanted <= now:
        return False
    run("resize2fs", device, str(wanted))
    return True


def rescan(device: str) -> None:
    """Have the kernel ask a disk for its size again: SCSI disks tell of it only when they are asked."""
    asked = Path("/sys/class/block", Path(device).name, "device/rescan")
    if asked.exists():
        asked.write_text("1")


def _blocks_for(device: str) -> int:
    size_bytes = int(output("blockdev", "--getsize64", device))
    return (size_bytes - RESERVE_BYTES) // BLOCK_BYTES


def settle() -> None:
    """Wait until the kernel and udev know all that is plugged in, by name and by UUID."""
    run("udevadm", "settle", "--timeout=30", accept=range(256))
