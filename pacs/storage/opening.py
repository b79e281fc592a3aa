"""Opening a volume of whatever kind, and making a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pacs.errors import UsageError, VolumeError
from pacs.storage import durable
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import Kind, Volume
from pacs.storage.promises import NFS
from pacs.storage.share_mount import require_share
from pacs.storage.volume import IDENTITY_FILE, VolumeIdentity, create_identity


def open_volume(
    kind: Kind,
    location: str,
    role: str,
    options: Mapping[str, Any],
    secrets: Path,
) -> Volume:
    """Open a volume for a role such as tier2. `secrets` is its file of keys, where its kind has any.

    Raise VolumeMissing if there is none at its location, another VolumeError if it cannot be used.
    """
    if kind == "local":
        return LocalVolume(Path(location), role)
    if kind == "nfs" and role == "tier1":
        return _receiving_share(Path(location), role)
    if kind in ("nfs", "smb"):
        from pacs.storage.share import ShareVolume

        return ShareVolume(kind, location, role, options)
    if kind == "s3":
        from pacs.storage.s3 import S3Volume  # boto3 is read in only where it is needed

        return S3Volume(location, role, options, secrets)
    raise VolumeError(f"The volume at {location} is of kind {kind}, which this version cannot open.")


def _receiving_share(root: Path, role: str) -> LocalVolume:
    """An NFS share where objects are received: mounted hard and sync, a file is on the server when its fsync is over.

    Its calls are made in this process, and wait while the server does not answer.
    """
    mount = require_share("nfs", root)
    if mount.why_it_may_not_receive:
        raise VolumeError(mount.why_it_may_not_receive)
    return LocalVolume(root, role, replace(NFS, may_receive=True))


def create_volume(
    kind: Kind, location: str, role: str, options: Mapping[str, Any], secrets: Path, appliance_id: str
) -> VolumeIdentity:
    """Make an empty place a volume: write its identity file, for a role and an appliance.

    Raise FileExistsError if it is a volume already, UsageError if it is a folder that is not empty, and what opening
    one raises.
    """
    if kind in ("nfs", "smb"):
        from pacs.storage.share import create_share_identity

        return create_share_identity(kind, location, role, options, appliance_id)
    if kind == "s3":
        from pacs.storage.s3 import create_s3_identity

        return create_s3_identity(location, role, options, secrets, appliance_id)
    root = Path(location)
    _require_empty(root)
    try:
        return create_identity(root, (role,), appliance_id)
    except FileExistsError:
        raise
    except OSError as error:
        raise durable.as_volume_error(error, root) from error


def _require_empty(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Make it, on the file system that is meant.")
    try:
        found = {path.name for path in folder.iterdir()} - {"lost+found"}
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be read: {error.strerror}. Make it the service's: `chown pacs: {folder}`."
        ) from error
    if IDENTITY_FILE in found:
        raise FileExistsError(folder)
    if found:
        raise UsageError(f"{folder} is no volume and not empty: it holds {min(found)}. Take an empty folder.")
