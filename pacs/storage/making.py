"""Making a folder a volume, and taking that back. For a share, its process does this (pacs/storage/share.py)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pacs.errors import UsageError
from pacs.storage import durable
from pacs.storage.volume import IDENTITY_FILE, VolumeIdentity, create_identity, read_identity


def identity_in(folder: Path) -> VolumeIdentity | None:
    """The identity of the volume in a folder; None if the folder is empty. Raise UsageError if it is neither."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Make it, on the file system that is meant.")
    try:
        if (folder / IDENTITY_FILE).exists():
            return read_identity(folder)
        others = sorted(path.name for path in folder.iterdir() if path.name != "lost+found")
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be read: {error.strerror}. Make it the service's: `chown pacs: {folder}`."
        ) from error
    if others:
        raise UsageError(f"{folder} is no volume and not empty: it holds {others[0]}. Take an empty folder.")
    return None


def make_in(folder: Path, role: str, appliance_id: str) -> VolumeIdentity:
    """Make an empty folder a volume. Raise VolumeFull or VolumeFailed."""
    try:
        return create_identity(folder, (role,), appliance_id)
    except OSError as error:
        raise durable.as_volume_error(error, folder) from error


def unmake_in(folder: Path) -> None:
    """Leave the folder of a volume that was made a moment ago as it was found."""
    with contextlib.suppress(OSError):
        (folder / "incoming").rmdir()
    with contextlib.suppress(OSError):
        (folder / IDENTITY_FILE).unlink()
