"""Volumes of every kind: opened, and made at a place where there was none.

A place is a kind, a location, the options of that kind, and the file of its secrets, which only S3 has. What a kind
needs is imported where it is used: boto3 alone takes a seventh of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pacs.errors import VolumeError
from pacs.storage import making
from pacs.storage.files import LOCAL, LocalVolume
from pacs.storage.kinds import Kind, Promise, Volume
from pacs.storage.promises import NFS, S3, SMB
from pacs.storage.volume import VolumeIdentity

#: The role of the volumes where objects are received.
RECEIVING_ROLE = "tier1"
#: What each kind promises, but for an NFS share that receives.
PROMISES: dict[Kind, Promise] = {"local": LOCAL, "nfs": NFS, "smb": SMB, "s3": S3}


@dataclass(frozen=True)
class Place:
    """Where a volume is, or is to be."""

    kind: Kind
    location: str
    options: Mapping[str, Any] = field(default_factory=dict)
    secrets: Path = Path()

    def open(self, role: str) -> Volume:
        """Open the volume for a role such as tier2. Raise VolumeMissing if there is none, or another VolumeError."""
        if self.kind == "nfs" and role == RECEIVING_ROLE:
            return self._receiving()
        if self.kind in ("nfs", "smb"):
            from pacs.storage.share import ShareVolume

            return ShareVolume(self.kind, self.location, role, self.options)
        if self.kind == "s3":
            from pacs.storage.s3 import S3Volume

            return S3Volume(self.location, role, self.options, self.secrets)
        return LocalVolume(Path(self.location), role)

    def _receiving(self) -> LocalVolume:
        """An NFS share where objects are received: on one that is mounted hard and sync a file is on the server when
        its fsync is over.

        Its calls are made in this process, and wait as long as the server does not answer.
        """
        from pacs.storage.share_mount import require_share

        mount = require_share("nfs", Path(self.location))
        if mount.why_it_may_not_receive:
            raise VolumeError(mount.why_it_may_not_receive)
        return LocalVolume(Path(self.location), RECEIVING_ROLE, replace(NFS, may_receive=True))

    def identity(self) -> VolumeIdentity | None:
        """The identity of the volume there; None if the place is empty. Raise UsageError if it is neither."""
        if self.kind in ("nfs", "smb"):
            from pacs.storage import share

            return share.identity_at(self.kind, self.location, self.options)
        if self.kind == "s3":
            from pacs.storage import s3_place

            return s3_place.identity_at(self.location, self.options, self.secrets)
        return making.identity_in(Path(self.location))

    def make(self, role: str, appliance_id: str) -> VolumeIdentity:
        """Make an empty place a volume: write its identity."""
        if self.kind in ("nfs", "smb"):
            from pacs.storage import share

            return share.make_at(self.kind, self.location, self.options, role, appliance_id)
        if self.kind == "s3":
            from pacs.storage import s3_place

            return s3_place.make_at(self.location, self.options, self.secrets, role, appliance_id)
        return making.make_in(Path(self.location), role, appliance_id)

    def unmake(self) -> None:
        """Take back what `make` did a moment ago. What cannot be taken back stays: it is an empty volume."""
        if self.kind in ("nfs", "smb"):
            from pacs.storage import share

            share.unmake_at(self.kind, self.location, self.options)
        elif self.kind == "s3":
            from pacs.storage import s3_place

            s3_place.unmake_at(self.location, self.options, self.secrets)
        else:
            making.unmake_in(Path(self.location))


def open_volume(kind: Kind, location: str, role: str, options: Mapping[str, Any], secrets: Path) -> Volume:
    """Open a volume for a role such as tier2; see Place.open."""
    return Place(kind, location, options, secrets).open(role)
