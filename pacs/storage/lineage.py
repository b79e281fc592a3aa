"""The lineage's files: the mark on each volume, and in the data directory what the state knows.

    VOLUME/lineage.json      its mark, beside the identity file, which never changes and on an appliance is root's
    DATA/lineage/state.json  lineage id, epoch, generation, and the generation that each volume surely has
    DATA/lineage/fenced.json      there while another node has taken over: why, and since when
    DATA/lineage/reverted.json    there since something was put back to an earlier moment, until a person has seen it

DATA/lineage is in no backup of the configuration: a restored node begins an epoch of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import Fenced, TryAgainLater, VolumeError
from pacs.model.lineage import Mark, State, mark_of, mark_values, state_of, state_values
from pacs.storage import durable
from pacs.storage.kinds import Volume
from pacs.storage.small_json import read_record, unreadable

MARK_FILE = "lineage.json"
#: What to read when a file of these is broken.
_PAGE = "going-back-in-time.md"
#: How long a look whether this node is fenced counts [s].
_LOOK_S = 1.0


@dataclass
class Reverted:
    """That something went back in time, and how far it is put right."""

    noticed_at: str
    findings: list[str]
    #: What was found of which place: what is found again is not told again.
    found: list[str] = field(default_factory=list)
    #: Whether the database's disk was among it: then its log goes on on a new timeline.
    is_state: bool = False
    #: The database's timeline when it was noticed; None: not looked at yet, or nothing to do.
    timeline_before: int | None = None
    timeline: int | None = None
    #: The highest timeline that is in use elsewhere, as far as the marks say.
    timeline_elsewhere: int = 0
    reconciled_at: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    #: What could not be put right, in words.
    problems: list[str] = field(default_factory=list)


class LineageFiles:
    """The lineage's files in a data directory."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "lineage"
        self._state, self._fenced, self._reverted = (
            self.folder / name for name in ("state.json", "fenced.json", "reverted.json")
        )
        self._looked_until_s = 0.0
        self._why: str | None = None
        self._is_paused = False

    def state(self) -> State | None:
        """What the state knows; None if it was never written. Raise VolumeError if it cannot be read."""
        found = read_record(self._state, _PAGE)
        try:
            return state_of(found) if found is not None else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise unreadable(self._state, error, _PAGE) from error

    def put_state(self, state: State) -> None:
        """Write it down durably. Raise VolumeFull or VolumeFailed."""
        self._put(self._state, state_values(state))

    def fenced(self) -> str | None:
        """Why this node is fenced; None if it is not."""
        found = read_record(self._fenced, _PAGE)
        return None if found is None else str(found.get("why", "Another node has taken over."))

    def fence(self, why: str, epoch: int = 0, may_be_read: bool = False) -> None:
        """Fence this node. epoch: the higher one that was met. may_be_read: nobody has taken over yet, and what is here
        is all there is."""
        since = clock.now().isoformat(timespec="seconds")
        self._put(self._fenced, {"why": why, "epoch": epoch, "since": since, "may_be_read": may_be_read})

    def is_paused(self) -> bool:
        """Whether this node is fenced, and may yet be read."""
        return bool((read_record(self._fenced, _PAGE) or {}).get("may_be_read", False))

    def highest_epoch(self) -> int:
        """The highest epoch that was met and fences this node; 0 if none does."""
        found = read_record(self._fenced, _PAGE)
        return 0 if found is None else int(found.get("epoch", 0))

    def lift_fence(self) -> None:
        """A person has said that this node is the archive."""
        self._remove(self._fenced)

    def require_not_fenced(self) -> None:
        """Raise Fenced if another node has taken over. Cheap enough to be asked at each object."""
        self._look()
        if self._why is not None:
            raise Fenced(f"This node is fenced: {self._why}. `pacs lineage show` (docs/operate/going-back-in-time.md).")

    def require_readable(self) -> None:
        """The same of reading: a node that is paused, to be handed over, is read as ever."""
        self._look()
        if not self._is_paused:
            self.require_not_fenced()

    def _look(self) -> None:
        if clock.monotonic_s() < self._looked_until_s:
            return
        try:
            self._is_paused, self._why = self.is_paused(), self.fenced()
        except VolumeError as error:  # it is there, whatever it says
            self._is_paused, self._why = False, str(error)
        self._looked_until_s = clock.monotonic_s() + _LOOK_S

    def require_settled(self) -> None:
        """Raise Fenced, or TryAgainLater while what went back in time is not put right: a comparison of files and rows
        would take files for spare ones that are the only ones."""
        self.require_not_fenced()
        notice = self.reverted()
        if notice is not None and not notice.reconciled_at:
            raise TryAgainLater(
                "A disk went back in time, and the worker is putting it right. See `pacs lineage show`."
            )

    def reverted(self) -> Reverted | None:
        """What went back in time and is not acknowledged; None if nothing did."""
        found = read_record(self._reverted, _PAGE)
        try:
            return Reverted(**found) if found is not None else None
        except TypeError as error:
            raise unreadable(self._reverted, error, _PAGE) from error

    def put_reverted(self, notice: Reverted) -> None:
        """Write it down durably."""
        self._put(self._reverted, asdict(notice))

    def forget_reverted(self) -> None:
        """A person has seen it."""
        self._remove(self._reverted)

    def _put(self, path: Path, values: Mapping[str, Any]) -> None:
        try:
            durable.make_folders(self.folder)
            durable.replace_file(path, (json.dumps(values, indent=1) + "\n").encode())
            self._give(path)
        except OSError as error:
            raise durable.as_volume_error(error, self.folder) from error
        self._looked_until_s = 0.0

    def _give(self, path: Path) -> None:
        """What root writes at the boot is the service's, as the folder is."""
        owner = self.folder.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.chown(path, owner.st_uid, owner.st_gid)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        durable.fsync_folder(self.folder)
        self._looked_until_s = 0.0


def read_mark(volume: Volume) -> Mark | None:
    """The mark on a volume; None if it has none. Raise VolumeMissing, VolumeFailed."""
    if not volume.has(MARK_FILE):
        volume.require_present()
        return None
    return _parse(volume.read_small(MARK_FILE))


def write_mark(volume: Volume, mark: Mark) -> None:
    """Put a mark on a volume, durably."""
    volume.replace_small(MARK_FILE, encoded(mark))


def read_mark_at(root: Path) -> Mark | None:
    """The mark of a volume on a disk, before anything runs; None if it has none, or is not here."""
    try:
        return _parse((root / MARK_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VolumeError(f"{root / MARK_FILE} cannot be read ({error}). Check the disk below {root}.") from error


def encoded(mark: Mark) -> bytes:
    """A mark as its file has it."""
    return (json.dumps(mark_values(mark), indent=1) + "\n").encode()


def _parse(content: bytes) -> Mark:
    """The mark that a file holds. One that is none is of no lineage: that is noticed, and it is written anew."""
    try:
        return mark_of(json.loads(content))
    except (KeyError, TypeError, ValueError, AttributeError):
        return Mark("that cannot be read", 0)
