"""Disks that an appliance is given later: made ready for `pacs volume add`, mounted at each start.

A disk is known by the label of its file system, pacs-<name>, and is mounted at /srv/pacs/<name>; so it comes back on
any system disk, wherever it is plugged in. Whether it is one of the archive's volumes its identity file says.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pacs.errors import UsageError, VolumeError
from pacs.machine import claim, filesystem, survey
from pacs.machine.commands import MachineError
from pacs.machine.policy import GIB, Disk

if TYPE_CHECKING:
    from pacs.machine.storage import Places

log = logging.getLogger(__name__)

LABEL = "pacs-"
#: A file system's label has 16 characters.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,10}", re.ASCII)
_RESERVED = {"state", "tier1", "tier2", "tier3", "backup"}


def add(places: Places, device: str, name: str) -> Path:
    """Make a file system on a blank disk and mount it; one that has that name already is only mounted.

    Return where. Raise UsageError with what to do, or VolumeError if its file system is damaged.
    """
    _require_name(name)
    mount_point = places.volumes / name
    if filesystem.is_mounted(mount_point):
        raise UsageError(f"Something is mounted at {mount_point} already. Take another name, or unmount it.")
    if mount_point.is_dir() and any(mount_point.iterdir()):
        raise UsageError(f"{mount_point} is not empty. Take another name, or see what is in there.")
    mounted = [path for path in places.volumes.iterdir() if filesystem.is_mounted(path)]
    found = survey.disks(mounted, places.disk_types, places.disks)
    disk = _chosen(found, str(Path(device).resolve()))
    if disk.label != LABEL + name:
        _require_blank(disk, found)
        filesystem.make(disk.path, name, claim.new_id())
    filesystem.mount(disk.path, mount_point)
    claim.give_folder(mount_point)
    return mount_point


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            f"{name!r} cannot be a disk's name. Take 1 to 11 small letters, digits and hyphens, and none of "
            f"{', '.join(sorted(_RESERVED))}."
        )


def _chosen(found: list[Disk], device: str) -> Disk:
    for disk in found:
        if disk.path == device:
            return disk
    raise UsageError(f"There is no free disk {device}. {_blank_ones(found)}")


def _require_blank(disk: Disk, found: list[Disk]) -> None:
    if disk.volume is not None:
        raise UsageError(
            f"{disk.path} is a volume of appliance {disk.volume.identity.appliance_id}, and is left alone. "
            f"{_blank_ones(found)}"
        )
    if not disk.blank:
        raise UsageError(
            f"{disk.path} is not blank, and is left alone. Take a new virtual disk; or, if nothing on this one is "
            f"needed any more, make it blank: `blkdiscard -z {disk.path}`. {_blank_ones(found)}"
        )
    if disk.size_bytes < GIB:
        raise UsageError(f"{disk.path} is smaller than 1 GiB. {_blank_ones(found)}")


def _blank_ones(found: Iterable[Disk]) -> str:
    blank = [f"{disk.path} ({disk.size_bytes / GIB:.1f} GiB)" for disk in found if disk.blank]
    return f"Blank are: {', '.join(blank)}." if blank else "No disk is blank: attach one."


def mount_added(places: Places, disks: Iterable[Disk]) -> list[str]:
    """Mount the disks that were added, at a start. That one cannot be is no reason not to start: return notes."""
    notes = []
    for disk in disks:
        name = disk.label.removeprefix(LABEL)
        mount_point = places.volumes / name
        try:
            _require_name(name)
            if not filesystem.is_mounted(mount_point):
                filesystem.mount(disk.path, mount_point)
                claim.give_folder(mount_point)
        except (UsageError, VolumeError, MachineError) as error:
            notes.append(f"{disk.path} was not mounted: {error}")
    return notes
