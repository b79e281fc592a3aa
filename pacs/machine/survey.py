"""What is plugged in: every disk that is not the system's, and what is on it. Reads; writes nothing.

(But for the replay of an ext4 journal after a loss of power, on volumes whose identity was read before without it:
see `_read_volume`.)
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pacs.errors import VolumeError, VolumeMissing
from pacs.machine import filesystem
from pacs.machine.commands import MachineError, output, run
from pacs.machine.encryption import mapped
from pacs.machine.policy import Disk, Volume
from pacs.machine.records import read_set
from pacs.storage.lineage import MARK_FILE
from pacs.storage.volume import IDENTITY_FILE, VolumeIdentity, read_identity

_COLUMNS = "NAME,PATH,TYPE,SIZE,RO,RM,MOUNTPOINTS"
# Floppies, memory and network disks: nothing to keep data on.
_NEVER = re.compile(r"/dev/(fd|ram|zram|nbd)\d")
_ZEROS_AT_START_BYTES, _ZEROS_AT_END_BYTES = 4 << 20, 1 << 20
# The settings of the archive that a seed may say, and that are then the only ones in its file.
_SEEDED = {"ae_title"}
_HOW_TO_UNLOCK = (
    'Unlock it with the key of the recovery sheet: type setup at "login:" here, or by SSH: sudo pacs machine unlock.'
)
_PART_OF_A_STOPPED_RAID = (
    "it is a disk of a software RAID that does not run. Attach the others of that RAID (docs/operate/raid.md); or, if "
    "nothing on it is needed, detach it or make it blank."
)
# What a state volume has without ever having stored anything.
_OF_NO_ACCOUNT = (
    "lost+found", "audit", "identity", "lineage", "postgresql", "upgrade", IDENTITY_FILE, "volumes.json", "config/ssh",
    "config/keys", "config/mail.toml", "config/mail.password", "machine", "locks",
)  # fmt: skip


def disks(mount_points: Iterable[Path], types: Collection[str], only: Collection[str] = ()) -> list[Disk]:
    """Every disk of these types and every software RAID but the system's, or `only` those of them with these paths.

    One mounted at one of mount_points is ours already, and looked at there.
    """
    ours = {str(path): path for path in mount_points}
    listed = json.loads(output("lsblk", "--json", "--bytes", "--output", _COLUMNS))["blockdevices"]
    found = []
    for one in _whole_disks(listed):
        if only and one["path"] not in only:
            continue
        if not _is_of(one, types) or _NEVER.match(one["path"]) or one["ro"] or one["rm"] or not one["size"]:
            continue
        mounted = _mounted(one)
        if all(place in ours for place in mounted):
            found.append(_look_at(one, ours[mounted[0]] if mounted else None))
    return found


def _whole_disks(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What may be a volume: each disk, and each software RAID, once. A running RAID's disks stand below it."""
    seen: set[str] = set()
    for one in listed:
        if not any(_is_raid(child) for child in one.get("children", ())):
            yield one
        for raid in _raids_below(one):
            if raid["path"] not in seen:
                seen.add(raid["path"])
                yield raid


def _raids_below(device: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for child in device.get("children", ()):
        if _is_raid(child):
            yield child
        yield from _raids_below(child)


def _is_raid(device: dict[str, Any]) -> bool:
    return str(device["type"]).startswith("raid") and bool(device["size"])


def _is_of(device: dict[str, Any], types: Collection[str]) -> bool:
    return device["type"] in types or _is_raid(device)


def _mounted(device: dict[str, Any]) -> list[str]:
    """Where a disk or anything on it is mounted ([SWAP] too)."""
    places = [place for place in device["mountpoints"] if place]
    for child in device.get("children", ()):
        places += _mounted(child)
    return sorted(set(places))


def _look_at(listed: dict[str, Any], mounted_at: Path | None) -> Disk:
    path, size_bytes = listed["path"], int(listed["size"])
    probed = run("blkid", "-p", "-o", "export", path, accept=range(256))
    values = dict(line.split("=", 1) for line in probed.stdout.splitlines() if "=" in line)
    if values.get("TYPE") == "crypto_LUKS" and values.get("LABEL", "").startswith("pacs-"):
        return _look_below(listed, values, mounted_at)
    # A disk that cannot be read is not blank, and no reason not to start with the others.
    signatures = run("wipefs", "-n", path, accept=range(256))
    unsigned = probed.returncode == 2 and signatures.returncode == 0 and not signatures.stdout.strip()
    unsigned = unsigned and not listed.get("children")
    is_part = values.get("TYPE") == "linux_raid_member" and not _is_running(values.get("UUID", ""))
    is_ext4 = values.get("TYPE") == "ext4" and not listed.get("children")
    volume, problem = None, _PART_OF_A_STOPPED_RAID if is_part else ""
    if is_ext4:
        try:
            volume = _volume_at(mounted_at) if mounted_at else _read_volume(path, values.get("LABEL", ""))
        except (VolumeError, MachineError) as error:
            problem = str(error) if values.get("LABEL", "").startswith("pacs-") else ""
    return Disk(
        path,
        size_bytes,
        _hardware(path, size_bytes),
        unsigned=unsigned,
        blank=unsigned and _begins_with_zeros(path),
        fs_uuid=values.get("UUID", "") if is_ext4 else "",
        volume=volume,
        problem=problem,
        label=values.get("LABEL", "") if is_ext4 else "",
        of_stopped_raid=is_part,
    )


def _look_below(listed: dict[str, Any], values: dict[str, str], mounted_at: Path | None) -> Disk:
    """An encrypted volume: if it is open, what is in it; else that it is locked."""
    path, volume_uuid = listed["path"], values["UUID"]
    inner = next((child for child in listed.get("children", ()) if child["path"] == str(mapped(volume_uuid))), None)
    hardware = _hardware(path, int(listed["size"]))
    if inner is None:
        problem = f"it is encrypted ({values['LABEL']}), and no key for it is here. {_HOW_TO_UNLOCK}"
        return Disk(
            path, int(listed["size"]), hardware, fs_uuid=volume_uuid, problem=problem, label=values["LABEL"],
            locked=True,
        )  # fmt: skip
    found = _look_at(inner, mounted_at)
    # A claim that was cut short before its mkfs leaves an open volume with nothing in it.
    return replace(
        found, hardware=hardware, unsigned=False, blank=False, fs_uuid=found.fs_uuid or volume_uuid,
        label=found.label or values["LABEL"], backing=path,
    )  # fmt: skip


def _is_running(raid_uuid: str) -> bool:
    """Whether that software RAID runs: then this is a disk that was left out of it."""
    try:
        said = run("mdadm", "--detail", "--scan", accept=range(256)).stdout
    except MachineError:  # no mdadm here
        return False
    running = "".join(line for line in said.splitlines() if line.startswith("ARRAY "))
    return raid_uuid.replace("-", "") in running.replace(":", "")


def _hardware(path: str, size_bytes: int) -> str:
    """A name for the disk that stays the same from boot to boot, as long as nobody rewires the machine."""
    said = run("udevadm", "info", "--query=property", f"--name={path}", accept=range(256)).stdout
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return " ".join(
        [values.get("ID_PATH") or values.get("MD_UUID") or path, values.get("ID_SERIAL", ""), str(size_bytes)]
    )


def _begins_with_zeros(path: str) -> bool:
    """Whether nothing stands at the start and at the end, where every format we know and many we don't begin."""
    try:
        with open(path, "rb") as disk:
            start = disk.read(_ZEROS_AT_START_BYTES)
            disk.seek(-_ZEROS_AT_END_BYTES, os.SEEK_END)
            return not any(start) and not any(disk.read(_ZEROS_AT_END_BYTES))
    except OSError:
        return False


def _read_volume(path: str, label: str) -> Volume | None:
    """What is on an unmounted ext4 file system; None if it is not ours.

    First without the file system's own journal, so that data newer than this version is refused before a byte is
    written. But what was written just before a loss of power stands only in that journal: so then with it. Without
    that second look a volume with an hour's images in it could be taken for an empty one.
    """
    with filesystem.looked_into(path, "ro,noload") as root:
        early = _identity(root)
    if early is None and not label.startswith("pacs-"):
        return None
    with filesystem.looked_into(path, "ro") as root:
        return _volume_at(root)


def _volume_at(root: Path) -> Volume:
    identity = read_identity(root)
    is_state = "state" in identity.roles
    return Volume(identity, has_data(root, is_state), read_set(root) if is_state else None)


def _identity(root: Path) -> VolumeIdentity | None:
    try:
        return read_identity(root)
    except VolumeMissing:
        return None


def has_data(root: Path, is_state: bool) -> bool:
    """Whether anything was ever stored on the volume."""
    return next(stored_files(root, is_state), None) is not None


def stored_files(root: Path, is_state: bool) -> Iterator[Path]:
    """The files of a volume that claiming and the first boot don't make.

    On a state volume those are its identity, the cluster (an index: what matters in it is journalled first), marks of
    the lineage, settings that a seed may have said (it says them again), administrators' keys and those of backups that
    nobody has made yet; segments of the journal without a record don't count either. Nor does half an identity file,
    which a loss of power leaves under its temporary name.
    """
    ignored = {root / name for name in _OF_NO_ACCOUNT} if is_state else {root / "lost+found", root / IDENTITY_FILE}
    roots = (root, root / "tier1") if is_state else (root,)
    if is_state and _is_seeded(root / "config/pacs.toml"):
        ignored.add(root / "config/pacs.toml")
    ignored.update(half for folder in roots for half in folder.glob(".volume*.json.*.tmp"))
    ignored.update(half for folder in roots for half in folder.glob(f".{MARK_FILE}.*.tmp"))
    ignored |= {roots[-1] / IDENTITY_FILE, roots[-1] / MARK_FILE}
    # The copy of an audit log that knows of no object yet, and when of nothing all was read.
    ignored.update(folder / name for folder in roots for name in ("audit", "fixity.json"))
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name not in ignored]
        for name in files:
            path = here / name
            empty_segment = is_state and here == root / "journal" and path.stat().st_size == 0
            if path not in ignored and not empty_segment:
                yield path


def _is_seeded(path: Path) -> bool:
    """Whether a file of settings has no more in it than what a seed may have said."""
    try:
        return tomllib.loads(path.read_text("utf-8")).keys() <= _SEEDED
    except (OSError, ValueError):
        return False
