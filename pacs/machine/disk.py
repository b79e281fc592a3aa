"""Disks that come later and go: made ready for `pacs volume add`, mounted at each start; given up.

A disk is known by the label of its file system, pacs-<name>, and is mounted at /srv/pacs/<name>; so it comes back on
any system disk, wherever it is plugged in. Whether it is one of the archive's volumes its identity file says.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pacs.errors import UsageError, VolumeError
from pacs.machine import claim, filesystem, survey
from pacs.machine.commands import MachineError
from pacs.machine.policy import GIB, Disk
from pacs.machine.records import read_set, read_system, write_set, write_system

if TYPE_CHECKING:
    from pacs.machine.storage import Places

log = logging.getLogger(__name__)

LABEL = "pacs-"
#: What `pacs volume retire` leaves on a volume (pacs/archive/volume_changes.py).
RETIRED_NOTE = "retired.json"
#: A file system's label has 16 characters.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,10}", re.ASCII)
_RESERVED = {"state", "tier1", "tier2", "tier3", "backup"}


def add(places: Places, device: str, name: str) -> Path:
    """Make a file system on a blank disk and mount it; one that has that name already is only mounted.

    Return where. Raise UsageError with what to do, or VolumeError if its file system is damaged.
    """
    require_name(name)
    mount_point = places.volumes / name
    if filesystem.is_mounted(mount_point):
        raise UsageError(f"Something is mounted at {mount_point} already. Take another name, or unmount it.")
    if mount_point.is_dir() and any(mount_point.iterdir()):
        raise UsageError(f"{mount_point} is not empty. Take another name, or see what is in there.")
    mounted = [path for path in places.volumes.iterdir() if filesystem.is_mounted(path)]
    found = survey.disks(mounted, places.disk_types, places.disks)
    disk = chosen(found, str(Path(device).resolve()))
    if disk.label != LABEL + name:
        require_blank(disk, found)
        filesystem.make(disk.path, name, claim.new_id())
    filesystem.mount(disk.path, mount_point)
    claim.give_folder(mount_point)
    return mount_point


def require_name(name: str) -> None:
    """Raise UsageError unless a disk or a share can have this name."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            f"{name!r} cannot be a name here. Take 1 to 11 small letters, digits and hyphens, and none of "
            f"{', '.join(sorted(_RESERVED))}."
        )


def chosen(found: list[Disk], device: str) -> Disk:
    """The disk of that path. Raise UsageError if it is none that may be used."""
    for disk in found:
        if disk.path == device:
            return disk
    raise UsageError(f"There is no free disk {device}. {_blank_ones(found)}")


def require_blank(disk: Disk, found: list[Disk]) -> None:
    """Raise UsageError with what to do unless nothing is on a disk."""
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
            require_name(name)
            if not filesystem.is_mounted(mount_point):
                filesystem.mount(disk.path, mount_point)
                claim.give_folder(mount_point)
        except (UsageError, VolumeError, MachineError) as error:
            notes.append(f"{disk.path} was not mounted: {error}")
    return notes


def forget(places: Places, role: str, is_lost: bool = False) -> None:
    """Have the appliance start without its first volume of a tier: its disk was emptied, or it is lost.

    Raise UsageError if it is neither, or no tier's, or shares its disk with the state.
    """
    known = read_system(places.memory)
    if known is None:
        raise UsageError("This appliance has no volumes yet.")
    with _state_root(places, known.appliance_id) as root:
        record = read_set(root)
        own = [each for each in record.members if role in each.roles]
        state = {each.fs_uuid for each in record.members if "state" in each.roles}
        if not own or own[0].fs_uuid in state:
            raise UsageError(f"{role} is no volume of this appliance that has a disk of its own.")
        if not is_lost and not (places.volumes / role / RETIRED_NOTE).exists():
            raise UsageError(
                f"{role} is in use. Empty it (`pacs volume drain {role}`, `pacs volume retire {role}`) first. Is its "
                f"disk lost: `pacs machine forget {role} --lost`; what has no other copy then comes from the backup."
            )
        write_set(root, replace(record, members=tuple(each for each in record.members if each not in own)))
    write_system(places.memory, replace(known, members=tuple(each for each in known.members if each not in own)))


@contextlib.contextmanager
def _state_root(places: Places, appliance_id: str) -> Iterator[Path]:
    """Where the state volume is; if it is not mounted, as when a volume is missing, a private place for it."""
    if filesystem.is_mounted(places.state):
        yield places.state
        return
    for disk in survey.disks((), places.disk_types, places.disks):
        if disk.volume and disk.volume.record and disk.volume.identity.appliance_id == appliance_id:
            with filesystem.looked_into(disk.path, "rw") as root:
                yield root
            return
    raise VolumeError("The state volume is not here. Attach its disk first.")
