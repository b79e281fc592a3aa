"""The lineage of a running instance: marks are looked at and moved on every few seconds, by the worker.

    look    the marks of all volumes that are here, repositories among them, and the database's
    judge   a higher epoch: fenced │ a mark that the state does not know, or an earlier one: reverted
    write   the state's, then the database's (once an hour), then each volume's; only while all fits

Two fsyncs a turn for the state and for each disk; shares, buckets and repositories have theirs every quarter of an
hour. Nothing is asked of the receive path but whether the file that fences is there, once a second. A repository is
given nothing before its mark was looked at.

`continue_lineage` is what a restore calls, `begin_epoch` what a move and a promotion do. A trial copy has a lineage of
its own (`begin_lineage`): its repositories are read, and their marks neither looked at nor written.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pacs import clock
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError
from pacs.index import lineage as rows
from pacs.index.database import Database
from pacs.index.volumes import REPOSITORY_TIER, KnownVolume
from pacs.model.lineage import STARTS_MAX, Mark, Place, State, judge, mark_of, mark_values, settled_name
from pacs.storage.kinds import Volume
from pacs.storage.lineage import LineageFiles, Reverted, read_mark, write_mark
from pacs.storage.looking_back import act_on
from pacs.storage.trial import trial_at

log = logging.getLogger(__name__)

#: How often marks are looked at and moved on [s].
BEAT_S = 15.0
#: How often those on shares, in buckets and in the database are [s].
FAR_BEAT_S, DATABASE_BEAT_S = 900.0, 3600.0
#: The database's place among those that carry a mark.
DATABASE = "database"


class Lineage:
    """Looks after the lineage of one instance. One at a time: the worker's."""

    def __init__(self, data: Path, database: Database, volumes: Volumes) -> None:
        self.files = LineageFiles(data)
        self.database, self.volumes = database, volumes
        self.is_trial = trial_at(data) is not None
        self._writer = str(uuid.uuid4())
        self._due_s: dict[str, float] = {}
        self._confirmed: dict[str, Place] = {}
        self._looked_at: set[str] = set()
        self._lock = threading.Lock()

    @property
    def is_held(self) -> bool:
        """Whether nothing may be moved, repaired or copied now: fenced, or not yet put right."""
        notice = self.files.reverted()
        return self.files.fenced() is not None or (notice is not None and not notice.reconciled_at)

    @property
    def may_back_up(self) -> bool:
        """Whether anything may go to a repository: no trial copy's does, and nothing while it is held."""
        return not (self.is_trial or self.is_held)

    def may_ship(self, volume_id: str) -> bool:
        """Whether a repository's mark was looked at since it is here, and all fits: nothing is shipped before."""
        return volume_id in self._looked_at and self.may_back_up

    def look_for_fence(self) -> None:
        """Whether another node has taken over, before a receiver takes associations. What cannot be told is logged."""
        state = self.files.state()
        if state is None:
            return
        try:
            marks = self._marks(all_of=True)
            findings = [judge(state, key, name, mark) for key, (name, mark) in marks.items()]
            act_on(self.files, [each for each in findings if each is not None and each.kind == "higher epoch"])
        except PacsError as error:
            log.error("it cannot be told whether another node has taken over: %s", error)

    def beat(self) -> None:
        """Look at all marks; act on what does not fit, else move them on. Raise VolumeError, DatabaseUnavailable."""
        with self._lock:
            self._beat()

    def _beat(self) -> None:
        state = self.files.state() or self._first()
        marks = self._marks()
        findings = [each for key, (name, mark) in marks.items() if (each := judge(state, key, name, mark)) is not None]
        act_on(self.files, findings)
        self._looked_at = (self._looked_at & self.volumes.by_id.keys()) | (marks.keys() - {DATABASE})
        if self.is_held:
            return
        self._move_on(state, marks)

    def settle(self, notice: Reverted) -> None:
        """What went back in time was put right: the marks go on beyond all that there are."""
        with self._lock:
            self._settle(notice)

    def _settle(self, notice: Reverted) -> None:
        state = self.files.state() or self._first()
        marks = self._marks(all_of=True)
        odd = [mark for key, (name, mark) in marks.items() if mark is not None and judge(state, key, name, mark)]
        above = max((mark.generation for _name, mark in marks.values() if mark is not None), default=0)
        settled = (*state.settled, *map(settled_name, odd))[-STARTS_MAX:]
        state = replace(state, places={}, settled=settled).next(self._writer, _now(), above)
        self.files.put_state(state)
        rows.put_mark(self.database, mark_values(state.mark))
        for volume in (self.volumes.by_id.get(row.volume_id) for row in self._rows()):
            if volume is not None:
                self._write(volume, state.mark)
        notice.reconciled_at = _now()
        self.files.put_reverted(notice)
        self._due_s.clear()
        self._confirmed.clear()

    # --- looked at ----------------------------------------------------------------------------------------------------

    def _marks(self, all_of: bool = False) -> dict[str, tuple[str, Mark | None]]:
        """The marks that are due to be looked at: place id → (name, mark). Those of what is away are left out."""
        found: dict[str, tuple[str, Mark | None]] = {}
        for row in self._rows():
            volume = self.volumes.by_id.get(row.volume_id)
            # One that was away and is back is looked at at once: nothing is shipped to it before.
            is_new = row.volume_id not in self._looked_at
            if volume is not None and (all_of or is_new or self._is_due(row.volume_id)):
                try:
                    found[row.volume_id] = (f"volume {row.name}", read_mark(volume))
                except PacsError as error:
                    log.warning("the mark of volume %s cannot be looked at: %s", row.name, error)
        if all_of or self._is_due(DATABASE):
            values = rows.get_mark(self.database)
            if values is not None:  # else it is new, or was rebuilt
                found[DATABASE] = ("the database", mark_of(values))
        return found

    def _rows(self) -> list[KnownVolume]:
        """The volumes whose marks are ours: a trial copy's repositories are another's."""
        return [row for row in self.volumes.rows if not (self.is_trial and row.tier == REPOSITORY_TIER)]

    def _is_due(self, place_id: str) -> bool:
        return clock.monotonic_s() >= self._due_s.get(place_id, float("-inf"))

    def _first(self) -> State:
        """What the state knows that never knew anything: the lineage of the volumes, else a new one."""
        for volume in self.volumes.all():
            mark = read_mark(volume)
            if mark is not None:
                return State(mark.lineage_id, mark.epoch)
        return State(str(uuid.uuid4()), 1)

    # --- moved on -----------------------------------------------------------------------------------------------------

    def _move_on(self, state: State, marks: Mapping[str, tuple[str, Mark | None]]) -> None:
        """Write the next marks, the state's first. What the volumes have by then is noted with the next turn's."""
        here = {row.volume_id for row in self._rows()} | {DATABASE}
        if self._is_due(DATABASE):
            state = replace(state, timeline=rows.timeline(self.database))
        known = {key: place for key, place in {**state.places, **self._confirmed}.items() if key in here}
        state = replace(state, places=known).next(self._writer, _now())
        self.files.put_state(state)
        if self._is_due(DATABASE):
            rows.put_mark(self.database, mark_values(state.mark))
            self._confirmed[DATABASE] = Place(DATABASE, "database", "", state.generation)
            self._due_s[DATABASE] = clock.monotonic_s() + DATABASE_BEAT_S
        for row in self._rows():
            volume = self.volumes.by_id.get(row.volume_id)
            if volume is None or row.volume_id not in marks:
                continue
            wait_s = 0.0 if row.kind == "local" and row.tier < REPOSITORY_TIER else FAR_BEAT_S
            self._due_s[row.volume_id] = clock.monotonic_s() + wait_s  # also where it cannot be written
            if self._write(volume, state.mark):
                self._confirmed[row.volume_id] = Place(row.name, row.kind, row.location, state.generation)
        if self._confirmed.keys() - known.keys():  # new here: the next start must know where to look
            self.files.put_state(replace(state, places={**known, **self._confirmed}))

    def _write(self, volume: Volume, mark: Mark) -> bool:
        try:
            write_mark(volume, mark)
        except PacsError as error:  # the others get theirs
            log.warning("no mark could be written to %s: %s", volume.location, error)
            return False
        return True


def continue_lineage(data: Path, repository: Volume) -> Mark:
    """This node was restored from a repository, and is the archive from now on: its lineage goes on in a new epoch.

    The repository has it when this returns, so that the node that wrote there stops as soon as it looks; unless nothing
    can be written there now: then the worker sees to it.
    """
    found = read_mark(repository)
    mark = begin_epoch(data, found.lineage_id if found else None, found.epoch if found else 0)
    try:
        write_mark(repository, mark)
    except PacsError as error:
        log.error("the repository does not know yet that this node has taken over: %s", error)
    return mark


def begin_lineage(data: Path, repository: Volume) -> None:
    """This node is a trial copy of what a repository holds: of a lineage of its own, that nobody else meets."""
    files = LineageFiles(data)
    before, found = files.state(), read_mark(repository)
    former = {*(before.former if before else ()), *(each.lineage_id for each in (before, found) if each)}
    state = State(str(uuid.uuid4()), 1, before.generation if before else 0, former=tuple(sorted(former)))
    files.put_state(state.next(str(uuid.uuid4()), _now()))
    files.lift_fence()


def begin_epoch(data: Path, lineage_id: str | None = None, above: int = 0) -> Mark:
    """This node is the archive from now on: after a restore, a move, a promotion. Return the mark to be put elsewhere.

    lineage_id: that of the archive that was restored, None for the one that is here. above: the highest epoch that was
    met. Durable when this returns; the worker's next turn brings it to the volumes.
    """
    files = LineageFiles(data)
    before = files.state()
    epoch = max(above, before.epoch if before else 0) + 1
    found = lineage_id or (before.lineage_id if before else str(uuid.uuid4()))
    former = (*before.former, before.lineage_id) if before and before.lineage_id != found else ()
    state = State(found, epoch, before.generation if before else 0, former=former).next(str(uuid.uuid4()), _now())
    files.put_state(state)
    files.lift_fence()
    log.warning("lineage %s: this node begins epoch %d", found, epoch)
    return state.mark


def _now() -> str:
    return clock.now().isoformat(timespec="seconds")
