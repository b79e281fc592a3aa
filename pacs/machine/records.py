"""What is written down about a set of volumes, in two places.

On the state volume, `volumes.json`: every volume of the set. On the system disk, `/var/lib/pacs/volumes.json`: which
set this system disk belongs to, so that it never starts without it; while disks are being claimed, also which, so
that a claim cut short is known again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pacs import __version__
from pacs.errors import DataTooNew, VolumeError
from pacs.storage import durable

FORMAT = 1
SET_FILE = "volumes.json"


@dataclass(frozen=True)
class Member:
    """One volume of a set. Two with the same fs_uuid share a disk: then tier 1 is a folder on the state volume."""

    volume_id: str
    roles: tuple[str, ...]
    fs_uuid: str
    size_bytes: int


@dataclass(frozen=True)
class SetRecord:
    """The volumes of one appliance, the state volume among them. version: that wrote it."""

    appliance_id: str
    members: tuple[Member, ...]
    format: int = FORMAT
    version: str = __version__


@dataclass(frozen=True)
class SystemRecord:
    """What a system disk remembers.

    claiming: a claim began and has not ended; hardware maps each file system's UUID to the disk it is made on.
    folders: runs without volumes, its data in folders on the system disk.
    chosen: an administrator said that it is this set, whatever else is attached.
    """

    appliance_id: str
    members: tuple[Member, ...] = ()
    claiming: bool = False
    folders: bool = False
    chosen: bool = False
    hardware: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def read_set(root: Path) -> SetRecord:
    """The record on the state volume at root. Raise VolumeError if there is none, DataTooNew if it is newer."""
    path = root / SET_FILE
    found = _read(path)
    if found is None:
        raise VolumeError(f"{path} is missing: the state volume does not say what belongs to it. Restore the backup.")
    try:
        members = _members(found["members"])
        return SetRecord(str(found["appliance_id"]), members, int(found["format"]), str(found.get("version", "")))
    except (KeyError, TypeError, ValueError) as error:
        raise VolumeError(f"{path} cannot be understood ({error!r}). Restore the backup.") from error


def write_set(root: Path, record: SetRecord) -> None:
    """Write the record of a set durably onto its state volume."""
    durable.replace_file(root / SET_FILE, _text(record))


def read_system(path: Path) -> SystemRecord | None:
    """What this system disk remembers, or None when it never had volumes."""
    found = _read(path)
    if found is None:
        return None
    try:
        return SystemRecord(**{**found, "members": _members(found["members"])})
    except (KeyError, TypeError, ValueError) as error:
        raise VolumeError(
            f"{path} cannot be understood ({error!r}). Import the appliance anew: its disks stay."
        ) from error


def write_system(path: Path, record: SystemRecord) -> None:
    """Write durably what this system disk is to remember."""
    durable.make_folders(path.parent)
    durable.replace_file(path, _text(record))


def _members(found: list[dict[str, Any]]) -> tuple[Member, ...]:
    return tuple(
        Member(str(one["volume_id"]), tuple(one["roles"]), str(one["fs_uuid"]), int(one["size_bytes"])) for one in found
    )


def _text(record: SetRecord | SystemRecord) -> bytes:
    return (json.dumps(asdict(record), indent=1) + "\n").encode()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        newer = int(found["format"]) > FORMAT
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VolumeError(f"{path} cannot be read ({error}). Look at its disk.") from error
    if newer:
        raise DataTooNew.of_format(str(path), found, FORMAT)
    return found
