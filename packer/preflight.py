"""What must be there before a build begins, so that it stops in its first second and not in its tenth minute."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from packer.errors import BuildError

OLDEST_PACKER = (1, 6, 6)
FIRST_PACKER_WITH_PLUGINS = (1, 7, 0)
GIB = 1024**3
TOOLS = (
    "mmdebstrap", "sfdisk", "mkfs.ext4", "debugfs", "e2fsck", "mkfs.vfat", "mmd", "mcopy", "qemu-img",
    "qemu-system-x86_64", "xorriso", "ssh-keygen", "ssh", "zstd",
)  # fmt: skip


def check_tools() -> None:
    """Every program of the build is on the PATH. Debian keeps some in /usr/sbin, which a user's PATH may lack."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    needed = TOOLS if os.geteuid() == 0 else (*TOOLS, "fakeroot")
    missing = [tool for tool in needed if not shutil.which(tool)]
    if missing:
        raise BuildError(
            f"These programs are missing: {', '.join(missing)}.",
            "On Debian or Ubuntu run: requirements/ensure-debian requirements/debian-appliance.txt",
        )


def packer_version() -> tuple[int, int, int]:
    """Version of HashiCorp's Packer, which must be new enough."""
    words = ".".join(str(number) for number in OLDEST_PACKER)
    remedy = (
        f"Install Packer {words} or newer: Debian 12 has it as the package packer; for Debian 13 and others it comes "
        "from its maker, HashiCorp, as one program to put on the PATH."
    )
    if not shutil.which("packer"):
        raise BuildError("Packer is not there.", remedy)
    text = subprocess.run(["packer", "version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"Packer v(\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise BuildError("The `packer` on the PATH is not HashiCorp's Packer.", remedy)
    version = (int(found[1]), int(found[2]), int(found[3]))
    if version < OLDEST_PACKER:
        raise BuildError(f"Packer {found[0].removeprefix('Packer v')} is too old.", remedy)
    return version


def check_space(needs_bytes: Mapping[Path, int]) -> None:
    """Every folder's file system has room for what goes there; folders on one file system share it."""
    wanted: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for folder, size_bytes in needs_bytes.items():
        place = existing(folder)
        wanted[place.stat().st_dev] += size_bytes
        places[place.stat().st_dev] = place
    for device, size_bytes in wanted.items():
        free_bytes = shutil.disk_usage(places[device]).free
        if free_bytes < size_bytes:
            raise BuildError(
                f"Not enough room where {places[device]} lies: {free_bytes / GIB:.1f} GiB free, "
                f"{size_bytes / GIB:.1f} GiB needed.",
                "Make room, or put the build elsewhere: --build, --dist and --cache of python -m packer.build.",
            )


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def check_writable(folder: Path) -> None:
    """Files can be made in this folder, or it can be made."""
    place = existing(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        raise BuildError(f"{place} can't be written to.", "Give yourself the right to it, or choose another folder.")
