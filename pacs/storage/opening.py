"""Volumes of every kind: opened, and made at a place where there was none.

A place is a kind, a location, the options of that kind, and the file of its secrets, which only S3 and SFTP have. What
a kind needs is imported where it is used: boto3 alone takes a seventh of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacs.storage import making
from pacs.storage.files import LOCAL, LocalVolume
from pacs.storage.kinds import Kind, Promise, Volume
from pacs.storage.promises import NFS, S3, SFTP, SMB
from pacs.storage.volume import VolumeIdentity

#: What each kind promises; an NFS share receives only where it is mounted hard and sync.
PROMISES: dict[Kind, Promise] = {"local": LOCAL, "nfs": NFS, "smb": SMB, "s3": S3, "sftp": SFTP}


@dataclass(frozen=True)
class Place:
    """Where a volume is, or is to be."""

    kind: Kind
    location: str
    options: Mapping[str, Any] = field(default_factory=dict)
    secrets: Path = Path()

    def open(self, role: str) -> Volume:
        """Open the volume for a role such as tier2. Raise VolumeMissing if there is none, or another VolumeError."""
        if self.kind in ("nfs", "smb"):
            from pacs.storage.share import ShareVolume

            return ShareVolume(self.kind, self.location, role, self.options)
        if self.kind == "s3":
            from pacs.storage.s3 import S3Volume

            return S3Volume(self.location, role, self.options, self.secrets)
        if self.kind == "sftp":
            from pacs.storage.sftp import SftpVolume

            return SftpVolume(self.location, role, self.options, self.secrets)
        return LocalVolume(Path(self.location), role)

    def identity(self) -> VolumeIdentity | None:
        """The identity of the volume there; None if the place is empty. Raise UsageError if it is neither."""
        if self.kind in ("nfs", "smb"):
            from pacs.storage import share_place

            return share_place.identity_at(self.kind, self.location, self.options)
        if self.kind == "s3":
            from pacs.storage import s3_place

            return s3_place.identity_at(self.location, self.options, self.secrets)
        if self.kind == "sftp":
            from pacs.storage import sftp

            return sftp.identity_at(self.location, self.options, self.secrets)
        return making.identity_in(Path(self.location))

    def make(self, role: str, appliance_id: str) -> VolumeIdentity:
        """Make an empty place a volume: write its identity."""
        if self.kind in ("nfs", "smb"):
            from pacs.storage import share_place

            return share_place.make_at(self.kind, self.location, self.options, role, appliance_id)
        if self.kind == "s3":
            from pacs.storage import s3_place

            return s3_place.make_at(self.location, self.options, self.secrets, role, appliance_id)
        if self.kind == "sftp":
            from pacs.storage import sftp

            return sftp.make_at(self.location, self.options, self.secrets, role, appliance_id)
        return making.make_in(Path(self.location), role, appliance_id)

    def unmake(self) -> None:
        """Take back what `make` did a moment ago. What cannot be taken back stays: it is an empty volume."""
        if self.kind in ("nfs", "smb"):
            from pacs.storage import share_place

            share_place.unmake_at(self.kind, self.location, self.options)
        elif self.kind == "s3":
            from pacs.storage import s3_place

            s3_place.unmake_at(self.location, self.options, self.secrets)
        elif self.kind == "sftp":
            from pacs.storage import sftp

            sftp.unmake_at(self.location, self.options, self.secrets)
        else:
            making.unmake_in(Path(self.location))


def reference() -> str:
    """What each kind promises, as Markdown, for docs/reference/volumes.md."""
    rows: dict[str, list[str]] = {
        "receives objects": [_yes(each.may_receive) for each in PROMISES.values()],
        "makes files safe against a loss of power": [_yes(each.fsyncs) for each in PROMISES.values()],
        "a file has its name only when it is whole": [_yes(each.renames) for each in PROMISES.values()],
        "lists every file": [_yes(each.lists_all) for each in PROMISES.values()],
        "knows its free room": [_yes(each.knows_room) for each in PROMISES.values()],
    }
    rows["receives objects"][list(PROMISES).index("nfs")] = "mounted hard and sync"
    lines = [f"| | {' | '.join(PROMISES)} |", "|---" * (len(PROMISES) + 1) + "|"]
    lines += [f"| {what} | {' | '.join(cells)} |" for what, cells in rows.items()]
    for kind, promise in PROMISES.items():
        lines += ["", f"**{kind}**: read back by {promise.far_side}. {promise.note}"]
    return "\n".join(lines) + "\n"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def open_volume(kind: Kind, location: str, role: str, options: Mapping[str, Any], secrets: Path) -> Volume:
    """Open a volume for a role such as tier2; see Place.open."""
    return Place(kind, location, options, secrets).open(role)
