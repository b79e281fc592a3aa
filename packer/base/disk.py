"""The base disk: a Debian that boots under BIOS, UEFI and Secure Boot, made without a loop device, a mount or a boot.

mmdebstrap makes the root file system from the signed archive (root or not), `mkfs.ext4 -d` puts it into a partition of
a sparse file. The result is kept by the digest of everything that goes into it: `base_disk` makes it only once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packer.base import bootloader, layout
from packer.mirrors import GUEST_RELEASE, Mirrors, packages_digest
from packer.progress import run_logged

HERE = Path(__file__).parent
KEPT_DISKS = 2
_REMEDY = "Read the log. When it speaks of the network or of a signature, look at the mirror in /etc/apt and try again."


@dataclass(frozen=True)
class BaseDisk:
    """A base disk in the cache, and the kernel that is on it."""

    disk: Path
    kernel: Path
    recipe: str
    reused: bool


def base_disk(cache: Path, scratch: Path, log: Path, mirrors: Mirrors | None) -> BaseDisk:
    """The base disk of today's recipe, from the cache or newly made in `scratch`."""
    recipe = recipe_digest(mirrors)
    folder = cache / f"base-{recipe[:24]}"
    found = BaseDisk(folder / "base.qcow2", folder / "vmlinuz", recipe, reused=folder.is_dir())
    if not found.reused:
        made = scratch / "base"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        _make(made, log, mirrors, layout.Identifiers.of(recipe))
        cache.mkdir(parents=True, exist_ok=True)
        _publish(made, folder)
    os.utime(folder)
    _forget_old(cache)
    return found


def recipe_digest(mirrors: Mirrors | None) -> str:
    """SHA-256 over all that decides what the disk holds: our files and what the archive has now.

    With mmdebstrap's default mirror, which we don't ask, a disk is good for the rest of the week.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in HERE.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        digest.update(f"{path.relative_to(HERE)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    archive = packages_digest(mirrors, GUEST_RELEASE) if mirrors else time.strftime("week %G-%V", time.gmtime())
    digest.update(repr((mirrors, archive)).encode())
    return digest.hexdigest()


def packages(text: str) -> list[str]:
    """The packages of a list with # comments."""
    return [word for line in text.splitlines() for word in line.split("#")[0].split()]


def _make(folder: Path, log: Path, mirrors: Mirrors | None, identifiers: layout.Identifiers) -> None:
    archive, disk = folder / "root.tar", folder / "disk.raw"
    _bootstrap(archive, log, mirrors, identifiers)
    with disk.open("wb") as stream:
        stream.truncate(layout.DISK_SIZE_MIB * layout.MIB)
    table = folder / "table.sfdisk"
    table.write_text(layout.sfdisk_script(identifiers))
    # sh only so that sfdisk gets its script from a file.
    run_logged(["sh", "-c", 'sfdisk --quiet "$0" <"$1"', disk, table], log, remedy=_REMEDY)
    root = folder / "root"
    run_logged(
        [*_as_root_of_files(), HERE / "pack.sh", archive, root, disk],
        log,
        remedy=_REMEDY,
        env={
            "ROOT_UUID": identifiers.root,
            "ROOT_OFFSET_BYTES": str(layout.ROOT_A_START_MIB * layout.MIB),
            "ROOT_SIZE_KIB": str(layout.ROOT_SIZE_MIB * 1024),
            "EXT4_FEATURES": layout.EXT4_FEATURES,
        },
    )
    bootloader.install_bios(disk, root / "boot/grub/i386-pc/boot.img", root / "boot/grub/i386-pc/core.img")
    _efi_partition(folder, root, disk, log, identifiers)
    shutil.copyfile(next(root.glob("boot/vmlinuz-*")), folder / "vmlinuz")
    run_logged(["qemu-img", "convert", "-O", "qcow2", disk, folder / "base.qcow2"], log, remedy=_REMEDY)
    for leftover in (archive, disk, table, folder / "esp.fat"):
        leftover.unlink()
    shutil.rmtree(root)


def _bootstrap(archive: Path, log: Path, mirrors: Mirrors | None, identifiers: layout.Identifiers) -> None:
    names = packages((HERE / "packages.txt").read_text())
    command: list[str | Path] = [
        "mmdebstrap",
        "--variant=apt",
        # The guest then installs from the same lists, and sysprep takes them away.
        "--skip=cleanup/apt/lists",
        "--architectures=amd64",
        f"--include={','.join(names)}",
        "--aptopt=Acquire::Retries 3",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        # customize.sh takes it back: on an appliance dpkg syncs what it writes.
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f'--essential-hook={HERE / "install-files.sh"} "$1"',
        f'--customize-hook={HERE / "customize.sh"} "$1"',
        GUEST_RELEASE,
        archive,
        *(mirrors.sources(GUEST_RELEASE) if mirrors else ()),
    ]
    run_logged(
        command,
        log,
        remedy=_REMEDY,
        env={
            "ROOT_PARTITION": identifiers.partitions[2],
            "ESP_UUID": identifiers.esp,
            "FILES": str(HERE / "files"),
            "BOOT": str(HERE / "boot"),
            "LC_ALL": "C",
        },
    )


def _as_root_of_files() -> Sequence[str]:
    """What lets an ordinary user unpack files that belong to root."""
    return () if os.geteuid() == 0 else ("fakeroot", "--")


def _efi_partition(folder: Path, root: Path, disk: Path, log: Path, identifiers: layout.Identifiers) -> None:
    """A FAT of its own file, put into place afterwards: mkfs.vfat takes a whole disk's size for the cluster size."""
    esp = folder / "esp.fat"
    with esp.open("wb") as stream:
        stream.truncate(layout.ESP_SIZE_MIB * layout.MIB)
    grub_cfg, variables = HERE / "boot/grub.cfg", folder / "grubenv"
    variables.write_bytes(bootloader.environment_block(slot="a", **{"try": ""}))
    files = {
        **bootloader.efi_files(root),
        "EFI/BOOT/grub.cfg": grub_cfg,
        # Where the signed GRUB looks when it was not started from the removable path.
        "EFI/debian/grub.cfg": grub_cfg,
        # Where the BIOS one does.
        "grub/grub.cfg": grub_cfg,
        "pacs/grubenv": variables,
    }
    commands: list[list[str | Path]] = [
        ["mkfs.vfat", "--invariant", "-F", "32", "-n", "ESP", "-i", f"{identifiers.esp_serial:08x}", esp],
        ["mmd", "-i", esp, "::EFI", "::EFI/BOOT", "::EFI/debian", "::grub", "::pacs"],
    ]
    commands.extend(["mcopy", "-i", esp, source, f"::{target}"] for target, source in files.items())
    commands.append(["dd", f"if={esp}", f"of={disk}", "bs=1M", f"seek={layout.ESP_START_MIB}", "conv=notrunc,sparse"])
    for command in commands:
        # mtools take the time that they write from there, mkfs.vfat none (--invariant).
        run_logged(command, log, remedy=_REMEDY, env={"SOURCE_DATE_EPOCH": str(layout.EPOCH_S)})
    variables.unlink()


def _publish(made: Path, folder: Path) -> None:
    """Into the cache whole or not at all; `made` may lie on another file system."""
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(made, staging)
    shutil.rmtree(made)
    try:
        staging.rename(folder)
    except OSError:  # another build of the same recipe was quicker
        shutil.rmtree(staging)


def _forget_old(cache: Path) -> None:
    disks = sorted(cache.glob("base-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in disks[KEPT_DISKS:]:
        shutil.rmtree(folder, ignore_errors=True)
