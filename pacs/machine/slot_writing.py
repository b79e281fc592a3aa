"""The idle root slot: written, read back from the disk and compared, then fitted to this machine.

What is there already as it should be is not written again, so that one who was killed goes on, and a thin disk stays
thin. Only after all of it was read back and compared is it mounted and given what is this machine's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pacs.machine.commands import MachineError, run
from pacs.machine.slots import Slot
from pacs.machine.upgrade_file import UpgradeFile
from pacs.storage import durable

#: What of the running system goes into the new one, besides what is on the volumes.
CARRIED = (
    "etc/hostname", "etc/hosts", "etc/machine-id", "etc/localtime", "etc/timezone", "etc/pacs/machine.env",
    "var/lib/pacs/volumes.json",
)  # fmt: skip
#: Folders of which those files go that the new one does not have: what a site has added.
CARRIED_ADDITIONS = (
    "etc/systemd/network", "etc/systemd/resolved.conf.d", "etc/chrony/conf.d", "etc/chrony/sources.d", "etc/nftables.d",
    "usr/local/share/ca-certificates",
)  # fmt: skip
BOOT_TEMPLATE, BOOT_FILE = Path("boot/pacs.cfg.in"), Path("boot/pacs.cfg")
TRIAL_FILE = Path("var/lib/pacs/trial.json")
_MOUNT_POINT = Path("/run/pacs-machine/slot")
_BLKFLSBUF = 0x1261  # linux/fs.h

#: Called with what is done and how many bytes of how many.
Tell = Callable[[str, int, int], object]


def write(device: Path, file: UpgradeFile, tell: Tell = lambda *_words: None) -> None:
    """Make the device what the file says, and compare. Raise UsageError, MachineError."""
    manifest = file.manifest
    size, total = manifest.piece_bytes, manifest.size_bytes
    zeros = bytes(size)
    _forget(device)
    with _opened(device, os.O_RDWR) as fd:
        # What is half written must not look like a file system to GRUB, or to anybody.
        os.pwrite(fd, zeros[: min(size, 1 << 20)], 0)
        durable.fsync_fd(fd)
        wanted = file.pieces()
        following: tuple[int, bytes] | None = next(wanted, None)
        first: bytes | None = None
        for number in range(total // size):
            content = zeros
            if following is not None and following[0] == number:
                content, following = following[1], next(wanted, None)
            if number == 0:
                first = content  # with the superblock: the last to be written
            elif os.pread(fd, size, number * size) != content:
                _write_at(fd, content, number * size)
            tell("writing the idle slot", number * size, total)
        durable.fsync_fd(fd)
        _write_at(fd, first or zeros, 0)
        durable.fsync_fd(fd)
    compare(device, file, tell)


def compare(device: Path, file: UpgradeFile, tell: Tell = lambda *_words: None) -> None:
    """Read the slot back from its disk, and compare each piece with its digest. Raise MachineError."""
    manifest = file.manifest
    size, digests, zeros = manifest.piece_bytes, dict(manifest.pieces), bytes(manifest.piece_bytes)
    _forget(device)
    with _opened(device, os.O_RDONLY) as fd:
        for number in range(manifest.size_bytes // size):
            content, digest = os.pread(fd, size, number * size), digests.get(number)
            # Most of a slot is zeros, and they need no digest.
            good = hashlib.sha256(content).hexdigest() == digest if digest else content == zeros
            if not good:
                raise MachineError(
                    f"What was written to {device} does not come back (at {number * size} bytes). The running system "
                    "is as it was. Look at the system disk and at the kernel's log: journalctl -k"
                )
            tell("reading it back", number * size, manifest.size_bytes)


def fit(slot: Slot, trial: bytes, running: Path = Path("/")) -> None:
    """Give the new system in the slot what is this machine's own. `trial`: what its first boot reads."""
    run("e2fsck", "-fp", slot.device, accept=(0, 1))
    run("e2label", slot.device, f"root-{slot.name}")
    _MOUNT_POINT.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.ismount(_MOUNT_POINT):
        run("umount", str(_MOUNT_POINT))
    run("mount", "-t", "ext4", "-o", "nodev,nosuid,noexec", slot.device, str(_MOUNT_POINT))
    try:
        furnish(_MOUNT_POINT, slot.name, slot.partition_uuid, trial, running)
    finally:
        run("umount", str(_MOUNT_POINT))
    with _opened(Path(slot.device), os.O_RDONLY) as fd:
        durable.fsync_fd(fd)


def furnish(root: Path, name: str, partition_uuid: str, trial: bytes, running: Path) -> None:
    """Write into a new root file system where it is, what it is to do, and what of the running one goes with it."""
    template = (root / BOOT_TEMPLATE).read_text("utf-8")
    boot = template.replace("@SLOT@", name).replace("@PARTUUID@", partition_uuid)
    durable.replace_file(root / BOOT_FILE, boot.encode(), 0o644)
    table = (root / "etc/fstab").read_text("utf-8")
    fitted, count = re.subn(r"(?m)^\S+(?=\s+/\s)", f"PARTUUID={partition_uuid}", table)
    if count != 1:
        raise MachineError("The new system's /etc/fstab does not name its root. Take the file of another release.")
    durable.replace_file(root / "etc/fstab", fitted.encode(), 0o644)
    for path in CARRIED:
        _carry(running / path, root / path)
    for folder in CARRIED_ADDITIONS:
        for source in (running / folder).glob("*"):
            if not (root / folder / source.name).exists():
                _carry(source, root / folder / source.name)
    durable.make_folders((root / TRIAL_FILE).parent)
    durable.replace_file(root / TRIAL_FILE, trial, 0o644)


def _carry(source: Path, target: Path) -> None:
    if not source.is_file() and not source.is_symlink():
        return
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)


def _write_at(fd: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


@contextlib.contextmanager
def _opened(device: Path, flags: int) -> Iterator[int]:
    try:
        fd = os.open(device, flags | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"{device} cannot be opened: {error.strerror}.") from error
    try:
        yield fd
    except OSError as error:
        raise MachineError(
            f"{device} failed: {error.strerror}. The running system is as it was. Look at the system disk."
        ) from error
    finally:
        os.close(fd)


def _forget(device: Path) -> None:
    """Have what is read next come from the disk, not from memory."""
    with _opened(device, os.O_RDWR) as fd:
        durable.fsync_fd(fd)
        if device.is_block_device():
            fcntl.ioctl(fd, _BLKFLSBUF)
        else:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
