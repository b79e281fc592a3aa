"""Opening a volume of whatever kind, and making a new one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacs.errors import UsageError, VolumeError
from pacs.storage import durable
from pacs.storage.files import LOCAL, LocalVolume
from pacs.storage.kinds import Kind, Promise, Volume
from pacs.storage.volume import IDENTITY_FILE, VolumeIdentity, create_identity, read_identity

#: What each kind that this version can open promises.
PROMISES: dict[Kind, Promise] = {"local": LOCAL}


def open_volume(
    kind: Kind,
    location: str,
    role: str,
    options: Mapping[str, Any],  # noqa: ARG001 (of other kinds)
    secrets: Path,  # noqa: ARG001
) -> Volume:
    """Open a volume for a role such as tier2. `secrets` is its file of keys, where its kind has any.

    Raise VolumeMissing if there is none at its location, another VolumeError if it cannot be used.
    """
    if kind == "local":
        return LocalVolume(Path(location), role)
    raise VolumeError(f"The volume at {location} is of kind {kind}, which this version cannot open.")


def identity_at(location: Path) -> VolumeIdentity | None:
    """The identity of the volume in a folder; None if the folder is empty. Raise UsageError if it is neither."""
    if not location.is_dir():
        raise UsageError(f"There is no folder {location}. Make it, on the file system that is meant.")
    try:
        if (location / IDENTITY_FILE).exists():
            return read_identity(location)
        others = sorted(path.name for path in location.iterdir() if path.name != "lost+found")
    except OSError as error:
        raise UsageError(
            f"{location} cannot be read: {error.strerror}. Make it the service's: `chown pacs: {location}`."
        ) from error
    if others:
        raise UsageError(f"{location} is no volume and not empty: it holds {others[0]}. Take an empty folder.")
    return None


def make_identity(location: Path, role: str, appliance_id: str) -> VolumeIdentity:
    """Make an empty folder a volume. Raise VolumeFull or VolumeFailed."""
    try:
        return create_identity(location, (role,), appliance_id)
    except OSError as error:
        raise durable.as_volume_error(error, location) from error
