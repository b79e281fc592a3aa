"""Opening a volume of whatever kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacs.errors import VolumeError
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import Kind, Volume
from pacs.storage.volume import VolumeIdentity, create_identity


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
    if kind in ("nfs", "smb"):
        from pacs.storage.share import ShareVolume

        return ShareVolume(kind, location, role, options)
    if kind == "s3":
        from pacs.storage.s3 import S3Volume  # boto3 is read in only where it is needed

        return S3Volume(location, role, options, secrets)
    raise VolumeError(f"The volume at {location} is of kind {kind}, which this version cannot open.")


def create_volume(
    kind: Kind, location: str, role: str, options: Mapping[str, Any], secrets: Path, appliance_id: str
) -> VolumeIdentity:
    """Make an empty place a volume: write its identity file, for a role and an appliance.

    Raise FileExistsError if it is a volume already, and what opening one raises.
    """
    if kind in ("nfs", "smb"):
        from pacs.storage.share import create_share_identity

        return create_share_identity(kind, location, role, options, appliance_id)
    if kind == "s3":
        from pacs.storage.s3 import create_s3_identity

        return create_s3_identity(location, role, options, secrets, appliance_id)
    return create_identity(Path(location), (role,), appliance_id)
