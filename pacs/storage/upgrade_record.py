"""What is written down about upgrades, on the state volume, where every system disk that is attached finds it.

DATA/upgrade/accepted.json   the system that the data were last used by and that had passed: version, schema, …
DATA/upgrade/record.json     the last upgrade: from where to where, how far it is, how it ended
DATA/upgrade/kept.json       of which upgrade the copy of the cluster is, and when it was made
DATA/upgrade/cluster         that copy, whole as soon as kept.json is there
DATA/upgrade/failed          the cluster that a roll-back has replaced
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pacs.model.upgrade import System
from pacs.storage import durable
from pacs.storage.small_json import read_record, unreadable

#: What to read when a file of these is broken.
_PAGE = "upgrade.md"
PASSED, ROLLED_BACK, CALLED_OFF = "passed", "rolled back", "called off"


@dataclass
class Record:
    """An upgrade. Slots are `a` and `b`; empty where the whole system disk was replaced. Times are ISO 8601."""

    record_id: str
    from_slot: str
    to_slot: str
    origin: System
    target: System
    armed_at: str
    #: When the new system first found the volumes; before that it has touched nothing of them.
    began_at: str = ""
    #: That the new system gave up, or a person asked to go back: the next start of the old one puts things back.
    back_at: str = ""
    why: str = ""
    outcome: str = ""
    ended_at: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it has no end yet."""
        return not self.outcome

    @property
    def is_disk(self) -> bool:
        """Whether the whole system disk was replaced."""
        return not self.to_slot

    @property
    def stage(self) -> str:
        """Where it stands and what comes next, in words for whoever waits; empty when it has ended."""
        if not self.is_open:
            return ""
        if self.back_at:
            return f"The upgrade is called back: version {self.origin.version} is put back."
        if not self.began_at:
            return f"Version {self.target.version} waits for a restart."
        otherwise = "the data are put back" if self.is_disk else f"version {self.origin.version} comes back by itself"
        return f"Version {self.target.version} is on trial: when its selftest passes it stays, else {otherwise}."


@dataclass(frozen=True)
class Kept:
    """The copy of the cluster from before an upgrade."""

    record_id: str
    system: System
    at: str


class UpgradeFiles:
    """The files about upgrades in a data directory."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "upgrade"
        self.cluster, self.unfinished = self.folder / "cluster", self.folder / "cluster.unfinished"
        self.failed = self.folder / "failed"
        self._record, self._accepted, self._kept = (
            self.folder / name for name in ("record.json", "accepted.json", "kept.json")
        )

    def record(self) -> Record | None:
        """The last upgrade; None if there was none. Raise VolumeError if it cannot be read."""
        values = read_record(self._record, _PAGE)
        if values is None:
            return None
        known = {name: value for name, value in values.items() if name in Record.__dataclass_fields__}
        try:
            return Record(**{**known, "origin": _system(known["origin"]), "target": _system(known["target"])})
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(self._record, error, _PAGE) from error

    def put_record(self, record: Record) -> None:
        """Write it down durably. Raise VolumeFull, VolumeFailed."""
        self._put(self._record, asdict(record))

    def accepted(self) -> System | None:
        """The system that used the data last; None if that was before this was written down."""
        values = read_record(self._accepted, _PAGE)
        try:
            return _system(values) if values is not None else None
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(self._accepted, error, _PAGE) from error

    def accept(self, system: System) -> None:
        """Write down that the data are this system's from now on."""
        if self.accepted() != system:
            self._put(self._accepted, asdict(system))

    def kept(self) -> Kept | None:
        """The copy of the cluster that is kept; None if there is none, or it is not whole."""
        values = read_record(self._kept, _PAGE)
        try:
            return Kept(values["record_id"], _system(values["system"]), values["at"]) if values is not None else None
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(self._kept, error, _PAGE) from error

    def put_kept(self, kept: Kept | None) -> None:
        """Say that the copy is whole, or that there is none any more."""
        if kept is not None:
            self._put(self._kept, asdict(kept))
        elif self._kept.exists():
            self._kept.unlink()
            durable.fsync_folder(self.folder)

    def _put(self, path: Path, values: Mapping[str, Any]) -> None:
        try:
            durable.make_folders(self.folder)
            self.folder.chmod(0o755)
            durable.replace_file(path, (json.dumps(values, indent=1) + "\n").encode(), 0o644)
        except OSError as error:
            raise durable.as_volume_error(error, self.folder) from error


def _system(values: Mapping[str, Any]) -> System:
    return System(str(values["version"]), int(values["schema"]), int(values["postgresql"]))
