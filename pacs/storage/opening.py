"""Opening a volume of whatever kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacs.errors import VolumeError
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import Kind, Volume


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
