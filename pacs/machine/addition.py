"""A disk added to an appliance that is in use: made a volume, remembered with the set, mounted; and taken away again.

    a file system, its identity file -> the system disk's record, the set's on the state volume -> mounted at
    /srv/pacs/volumes/<name> -> `pacs volume add`, as the service

Cut short anywhere it is done again: a disk with the file system and nothing on it is taken up where it was left. From
the record on, every start mounts it, on any later system disk too. A start does not wait for it if it is missing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pacs.errors import UsageError, VolumeError
from pacs.machine import claim, filesystem, survey
from pacs.machine.policy import GIB, Adopt, Disk
from pacs.machine.records import Member, SetRecord, SystemRecord, read_set, read_system, write_set, write_system
from pacs.machine.storage import Places, mount

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
#: What `pacs volume retire` leaves on a volume.
RETIRED_NOTE = "retired.json"


def add(places: Places, device: str, tier: int, name: str) -> Path:
    """Make a blank disk a volume of a tier and mount it; return where. Raise UsageError or VolumeError."""
    system, record = _records(places)
    if not _NAME.fullmatch(name) or any(member.name == name for member in record.members):
        raise UsageError(f"{name!r} is taken, or no name: small letters, digits and hyphens. Take another.")
    disk = _disk(places, device)
    role = f"tier{tier}"
    member = _begun(disk, role, record) or _make(disk, role, record.appliance_id)
    member = replace(member, name=name)
    _write(places, system, record, (*record.members, member))
    mount(member, role, Adopt(record.appliance_id, (member,), {member.fs_uuid: disk}), places, on_state=False)
    return places.mount_point(member, role)


def remove(places: Places, name: str, is_lost: bool = False) -> None:
    """Unmount a volume that was retired, and forget it. is_lost: its disk is gone for good, or cannot be read."""
    system, record = _records(places)
    member = next((each for each in record.members if each.name == name), None)
    if member is None:
        raise UsageError(f"No disk was added as {name}. Those of the first boot cannot be taken away.")
    mount_point = places.mount_point(member, member.roles[0])
    is_mounted = filesystem.is_mounted(mount_point)
    if not is_mounted and not is_lost:
        raise UsageError(f"{name} is not attached. Attach its disk and restart; if it is gone for good, give --lost.")
    if not is_lost and not (mount_point / RETIRED_NOTE).exists():
        raise UsageError(f"{name} is in use. First `pacs volume drain {name}`, then `pacs volume retire {name}`.")
    if is_mounted:
        filesystem.unmount(mount_point)
    _write(places, system, record, tuple(each for each in record.members if each.name != name))


def _records(places: Places) -> tuple[SystemRecord, SetRecord]:
    system = read_system(places.memory)
    if system is None or system.claiming or system.folders or not filesystem.is_mounted(places.state):
        raise VolumeError(
            "This appliance has no volumes that a disk could be added to. See: systemctl status pacs-storage"
        )
    return system, read_set(places.state)


def _write(places: Places, system: SystemRecord, record: SetRecord, members: tuple[Member, ...]) -> None:
    write_system(places.memory, replace(system, members=members))
    write_set(places.state, replace(record, members=members))
    claim.give_state(places.state)


def _disk(places: Places, device: str) -> Disk:
    path = str(Path(device).resolve())
    found = [disk for disk in survey.disks((), places.disk_types, places.disks) if disk.path == path]
    if not found:
        raise UsageError(
            f"{device} is no whole disk, or it is in use. `lsblk` shows the disks; the screen those to be had."
        )
    if found[0].size_bytes < GIB:
        raise UsageError(f"{device} is smaller than 1 GiB. Take a larger disk.")
    return found[0]


def _begun(disk: Disk, role: str, record: SetRecord) -> Member | None:
    """The volume that an earlier try has made on the disk and that was not remembered yet."""
    found = disk.volume
    if found is None or found.identity.appliance_id != record.appliance_id or found.has_data:
        return None
    identity = found.identity
    if identity.roles != (role,) or any(member.volume_id == identity.volume_id for member in record.members):
        return None
    return Member(identity.volume_id, identity.roles, disk.fs_uuid, disk.size_bytes)


def _make(disk: Disk, role: str, appliance_id: str) -> Member:
    if not disk.blank:
        what = f"a volume of appliance {disk.volume.identity.appliance_id}" if disk.volume else "something"
        raise UsageError(
            f"{disk.path} is not blank: there is {what} on it. Take another disk; or, if nothing on it is needed, "
            f"`blkdiscard -z {disk.path}` makes it blank."
        )
    member = Member(claim.new_id(), (role,), claim.new_id(), disk.size_bytes)
    filesystem.make(disk.path, role, member.fs_uuid)
    with filesystem.looked_into(disk.path, "rw") as root:
        claim.make_tier(root, member, appliance_id)
    return member
