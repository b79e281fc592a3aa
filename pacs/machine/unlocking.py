"""The encrypted volumes of an appliance: opened at a start, by the recovery sheet, and their slots kept in order.

    TPM, or recovery sheet - opens -> state volume - holds locks/<uuid>.key - open -> the volumes beside it

Whatever cannot be opened stays as it is, and the survey tells of it (docs/decisions/0006-volume-encryption.md).
"""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Collection, Iterable
from pathlib import Path

from pacs.backup.master_key import MasterKey, MistypedKey
from pacs.errors import PacsError, UsageError, VolumeError, WrongKey
from pacs.machine import encryption, filesystem
from pacs.machine.policy import Disk
from pacs.storage import durable

log = logging.getLogger(__name__)

#: On the state volume: the own keys of every volume, itself among them.
LOCKS = "locks"
_SHEET_FILE = Path("config/keys/sheet.key")
_STATE_LABEL = "pacs-state"


def own_key(state: Path, volume_uuid: str) -> str:
    """The own key of a volume, as the state volume at `state` has it. Raise VolumeError."""
    path = state / LOCKS / f"{volume_uuid}.key"
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise VolumeError(
            f"{path} cannot be read ({error}). The recovery sheet opens the volume: sudo pacs machine unlock."
        ) from error


def keep_own_key(state: Path, volume_uuid: str, key: str) -> None:
    """Keep a volume's own key on the state volume, for root."""
    folder = state / LOCKS
    folder.mkdir(mode=0o700, exist_ok=True)
    durable.replace_file(folder / f"{volume_uuid}.key", f"{key}\n".encode(), 0o600)
    durable.fsync_folder(state)


def sheet_of(state: Path) -> MasterKey | None:
    """The key of the recovery sheet that this state volume has; None if it has none that can be read."""
    try:
        return MasterKey.typed((state / _SHEET_FILE).read_text("ascii"))
    except (OSError, ValueError, MistypedKey):
        return None


def have_sheet(state: Path, made: MasterKey | None = None) -> MasterKey:
    """The same, made if there is none: with encryption there is a sheet before there is a repository."""
    found = sheet_of(state)
    if found is not None:
        return found
    key, path, owner = made or MasterKey.make(), state / _SHEET_FILE, pwd.getpwnam("pacs")
    durable.make_folders(path.parent)
    os.chown(path.parent, owner.pw_uid, owner.pw_gid)
    path.parent.chmod(0o700)
    durable.replace_file(path, f"{key.text}\n".encode(), 0o600)
    os.chown(path, owner.pw_uid, owner.pw_gid)
    return key


def open_by_itself(found: Iterable[Disk], state: Path, tried: set[str]) -> bool:
    """Open what can be opened without a person. Whether anything was. tried: what the TPM did not open before."""
    locked = [disk for disk in found if disk.locked]
    opened = False
    for disk in locked:
        if disk.label == _STATE_LABEL and disk.fs_uuid not in tried and encryption.has_tpm():
            tried.add(disk.fs_uuid)
            opened |= encryption.open_by_tpm(disk.path, disk.fs_uuid)
    keys = _keys([_of_state(disk) for disk in found if disk.label == _STATE_LABEL], state) if locked else {}
    for disk in locked:
        if disk.fs_uuid in keys and not encryption.mapped(disk.fs_uuid).exists():
            opened |= encryption.open_with(disk.path, disk.fs_uuid, keys[disk.fs_uuid])
    if opened:
        filesystem.settle()
    return opened


def _of_state(disk: Disk) -> str:
    """Where the file system of a state volume's disk can be looked at; empty if it is locked."""
    if not disk.locked:
        return disk.path
    device = encryption.mapped(disk.fs_uuid)
    return str(device) if device.exists() else ""


def _keys(devices: Iterable[str], state: Path) -> dict[str, str]:
    """The own keys that are on open state volumes, by volume."""
    if filesystem.is_mounted(state):
        return _keys_in(state)
    found: dict[str, str] = {}
    for device in filter(None, devices):
        try:
            with filesystem.looked_into(device, "ro") as root:
                found = {**_keys_in(root), **found}
        except PacsError as error:
            log.warning("the keys on %s cannot be read: %s", device, error)
    return found


def _keys_in(root: Path) -> dict[str, str]:
    return {path.stem: path.read_text("ascii").strip() for path in (root / LOCKS).glob("*.key")}


def open_by_sheet(found: Iterable[Disk], sheet: MasterKey) -> list[str]:
    """Open every locked volume that the sheet fits; return their disks.

    Raise UsageError if nothing is locked, WrongKey if it fits none: nothing was touched then.
    """
    locked = [disk for disk in found if disk.locked]
    if not locked:
        raise UsageError("No volume is locked.")
    opened = [disk.path for disk in locked if encryption.open_with(disk.path, disk.fs_uuid, sheet.text)]
    if not opened:
        raise WrongKey(
            f"The recovery sheet {sheet.key_id} opens none of {', '.join(disk.path for disk in locked)}; nothing was "
            "touched. Take the sheet that was printed last for the appliance of these disks."
        )
    filesystem.settle()
    return opened


def keep_in_order(disks: Iterable[Disk], state: Path, headers: Path, by_tpm: bool | None) -> list[str]:
    """Have each open volume opened by what should open it, and by nothing else; keep copies of headers.

    The sheet that counts is the state volume's; the TPM this machine's, if by_tpm; None: as it is. Return notes for a
    person.
    """
    notes = []
    encrypted = [disk for disk in disks if disk.backing]
    sheet = have_sheet(state) if encrypted else None
    for disk in encrypted:
        assert sheet is not None
        try:
            key = _fitting_own_key(disk, state, sheet)
            encryption.add_sheet(disk.backing, key, sheet)
            if disk.fs_uuid in _state_uuids(encrypted):
                notes += _tpm_in_order(disk, key, by_tpm)
            encryption.keep_header(disk.backing, disk.fs_uuid, headers)
        except (PacsError, OSError) as error:
            notes.append(f"What opens {disk.backing} could not be brought in order: {error}")
    return notes


def _fitting_own_key(disk: Disk, state: Path, sheet: MasterKey) -> str:
    """The own key of a volume; a new one if that was lost with another state volume, and the sheet opens it."""
    path = state / LOCKS / f"{disk.fs_uuid}.key"
    if path.exists() and encryption.fits(disk.backing, key := own_key(state, disk.fs_uuid)):
        return key
    if not encryption.fits(disk.backing, sheet.text):
        raise VolumeError(
            f"Neither the key in {state / LOCKS} nor the recovery sheet {sheet.key_id} fits. It stays as it is."
        )
    key = encryption.new_key()
    keep_own_key(state, disk.fs_uuid, key)
    encryption.add_own(disk.backing, sheet.text, key)
    return key


def _state_uuids(disks: Iterable[Disk]) -> Collection[str]:
    return {disk.fs_uuid for disk in disks if disk.label == _STATE_LABEL}


def _tpm_in_order(disk: Disk, key: str, by_tpm: bool | None) -> list[str]:
    known = encryption.slots(disk.backing).tpm
    if not by_tpm:
        if known and by_tpm is not None:
            encryption.remove_tpm(disk.backing)
        return []
    if not encryption.has_tpm():
        return ["The volumes are encrypted, and this machine has no TPM: each start waits for the recovery sheet."]
    if not known or not encryption.tpm_has_opened(disk.fs_uuid):
        encryption.add_tpm(disk.backing, key)
        log.info("this machine's TPM opens %s from now on", disk.backing)
    return []
