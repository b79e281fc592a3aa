"""Makes volumes of blank disks. May be cut short anywhere and is then done again.

The order makes that safe:

1. The system disk notes that a claim began: the ids and file-system UUIDs chosen, and the disks. A disk met later
   with one of these UUIDs, or in one of these places with half a file system on it, is known as this claim's.
2. Each tier's disk: file system, then its identity file.
3. The state volume: file system, folders, record of the set, and last of all its identity file. A set counts as
   claimed from here on, and only from here on: until then it is made anew, and nothing can have been stored on it.
4. The system disk notes that the claim ended.
"""

from __future__ import annotations

import logging
import os
import pwd
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pacs.backup.master_key import MasterKey
from pacs.machine import encryption, filesystem, unlocking
from pacs.machine.policy import Disk
from pacs.machine.records import SET_FILE, Member, SetRecord, SystemRecord, write_set, write_system
from pacs.storage import durable
from pacs.storage.volume import IDENTITY_FILE, create_identity

log = logging.getLogger(__name__)


def new_id() -> str:
    """A new id for an appliance, a volume or a file system."""
    return str(uuid.uuid4())


def claim(
    disks: Iterable[tuple[Disk, tuple[str, ...]]],
    earlier: SystemRecord | None,
    memory: Path,
    sheet: MasterKey | None = None,
) -> SystemRecord:
    """Claim each disk for its roles. `earlier`: a claim that was cut short; `memory`: the system disk's record.

    `sheet`: encrypted, each with a key of its own, which the state volume gets, and this one of the recovery sheet.
    """
    appliance_id = new_id()
    chosen = [(disk, new_id(), roles) for disk, roles in disks]
    members = tuple(
        Member(new_id(), (role,), fs_uuid, disk.size_bytes) for disk, fs_uuid, roles in chosen for role in roles
    )
    hardware = {**(earlier.hardware if earlier else {}), **{fs_uuid: disk.hardware for disk, fs_uuid, _ in chosen}}
    record = SystemRecord(appliance_id, members, claiming=True, hardware=hardware)
    write_system(memory, record)
    keys: dict[str, str] = {}
    for disk, fs_uuid, roles in sorted(chosen, key=lambda one: "state" in one[2]):
        log.info("Claiming %s for %s", disk.backing or disk.path, " and ".join(roles))
        device = make_room(disk, roles[0], fs_uuid, sheet, keys)
        with filesystem.looked_into(device, "rw") as root:
            own = [member for member in members if member.fs_uuid == fs_uuid]
            if "state" in roles:
                if sheet is not None:
                    _keep_keys(root, keys, sheet)
                make_state(root, own, SetRecord(appliance_id, members))
            else:
                make_tier(root, own[0], appliance_id)
    record = replace(record, claiming=False)
    write_system(memory, record)
    return record


def make_room(disk: Disk, name: str, fs_uuid: str, sheet: MasterKey | None, keys: dict[str, str]) -> str:
    """Make a file system on a disk, encrypted if there is a sheet; its key is put into keys. Return where it is."""
    device = disk.path
    if disk.backing:  # open, from a claim that was cut short
        device = disk.backing
        encryption.close(disk.path.removeprefix(str(encryption.mapped(""))))
    if sheet is not None:
        keys.setdefault(fs_uuid, encryption.new_key())
        encryption.make(device, f"pacs-{name}", fs_uuid, keys[fs_uuid], sheet)
        encryption.open_with(device, fs_uuid, keys[fs_uuid])
        filesystem.settle()
        device = str(encryption.mapped(fs_uuid))
    filesystem.make(device, name, fs_uuid)
    return device


def _keep_keys(root: Path, keys: Mapping[str, str], sheet: MasterKey) -> None:
    for fs_uuid, key in keys.items():
        unlocking.keep_own_key(root, fs_uuid, key)
    _own(root / unlocking.LOCKS, "root", "root", 0o700)
    unlocking.have_sheet(root, sheet)


def make_tier(root: Path, member: Member, appliance_id: str) -> None:
    """Make root a tier's volume that the service owns."""
    durable.make_folders(root)
    create_identity(root, member.roles, appliance_id, member.volume_id)
    give_tier(root)


def give_tier(root: Path) -> None:
    """Give a tier's volume to the service. Done again at every boot: a claim may have been cut short before it."""
    _own(root, "pacs", "pacs", 0o750)
    _own(root / IDENTITY_FILE, "root", "pacs", 0o640)
    durable.fsync_folder(root)


def give_folder(root: Path) -> None:
    """Give the root of a disk that was added to the service, which makes a volume of it."""
    _own(root, "pacs", "pacs", 0o750)
    durable.fsync_folder(root)


def make_state(root: Path, own: Iterable[Member], record: SetRecord) -> None:
    """Make root the state volume of a set, with tier 1 as a folder in it if `own` says so. Its identity comes last."""
    durable.make_folders(root)
    for member in own:
        if "tier1" in member.roles:
            make_tier(root / "tier1", member, record.appliance_id)
    write_set(root, record)
    state = next(member for member in own if "state" in member.roles)
    create_identity(root, state.roles, record.appliance_id, state.volume_id)
    give_state(root)


def give_state(root: Path) -> None:
    """The folders of a state volume, with their owners. Done again at every boot, as for a tier.

    config/ is sticky: the service writes its settings there, and yet cannot replace the administrators' keys.
    """
    folders = [
        (root, "root", "pacs", 0o751),
        (root / "config", "root", "pacs", 0o1771),
        (root / "config/ssh", "root", "root", 0o755),
        (root / "journal", "pacs", "pacs", 0o750),
        (root / "audit", "pacs", "pacs", 0o750),
        (root / "receipts", "pacs", "pacs", 0o750),
        (root / "lineage", "pacs", "pacs", 0o750),
        (root / "standby", "pacs", "pacs", 0o750),  # sshd reads here who the twin is: nobody else may write
        (root / "drill", "pacs", "pacs", 0o750),
        (root / "holdings", "pacs", "pacs", 0o750),
        (root / "alerts", "pacs", "pacs", 0o700),
        # The way to the service's own dicom-tls/; what lies beside it is closed by each folder's mode.
        (root / "identity", "root", "root", 0o711),
        (root / "postgresql", "postgres", "postgres", 0o700),
        # PostgreSQL puts its log here, the service takes it on from here (pacs/backup/log_spool.py).
        (root / "pgbackrest-spool", "postgres", "pacs", 0o2770),
    ]
    for folder, user, group, mode in folders:
        durable.make_folders(folder)
        _own(folder, user, group, mode)
    for name in (SET_FILE, IDENTITY_FILE):
        _own(root / name, "root", "pacs", 0o640)
    durable.fsync_folder(root)


def _own(path: Path, user: str, group: str, mode: int) -> None:
    os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(group).pw_gid)
    path.chmod(mode)
