"""After something went back in time: what the volumes hold beyond the index is found again.

    the journal's longest copy ─▶ DATA/journal ─▶ the volumes that it adds
    every volume: rows without a file are marked, which repair then makes anew; files without a row are gathered
    the files, in the order in which their receipts say that they came, each read and compared with its digest:
        the lost copy of an object ─ taken for it │ an object that the index does not know ─ indexed, as of when it came
        one copy more of an object that has another ─ a row │ not whole, or a second one on its volume ─ quarantine
        (the row of one that had moved to there is forgotten: it is not to be made again where it was)
    the rest of the journal's changes ─▶ index

All rows are looked at before any file is: a file that moved after the moment that the index is of must not count as a
second copy beside one that is gone. Killed at any moment it is begun anew, and finds less to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from pacs import clock
from pacs.archive.later_journal import LaterJournal
from pacs.archive.reconcile import Comparison, Findings
from pacs.archive.volumes import Volumes
from pacs.errors import CannotUnderstand, PacsError
from pacs.index import lineage as rows
from pacs.index import store as store_rows
from pacs.index.database import Connection, Database
from pacs.index.locks import only_one
from pacs.model.record import IndexRecord
from pacs.storage.journal import Journal, segments_on
from pacs.storage.kinds import FileStatus, Volume
from pacs.storage.names import sha256_in_name
from pacs.storage.receipts import FOLDER, Line, Receipts
from pacs.storage.segments import lines_of

log = logging.getLogger(__name__)

#: A file that is younger may be on its way into the index [s]: a receiver's statement ends before.
IN_FLIGHT_S = 60.0


@dataclass
class Found(Findings):
    """What was found beyond the index."""

    #: Files that are one copy more of an object that has another.
    further: int = 0
    #: Rows whose files are gone as they had moved to where such a copy was found.
    moved: int = 0
    #: Changes that the journal knew and the index did not.
    changes: int = 0


@dataclass(frozen=True)
class _Orphan:
    at: datetime
    path: str
    file: FileStatus
    comparison: _Beyond


#: (SHA-256, SOP Instance UID) → when it came, and who sent it.
_Arrivals = dict[tuple[str, str], tuple[str, Line | None]]


def reconcile_reverted(
    database: Database,
    volumes: Volumes,
    journal: Journal,
    receipts: Receipts,
    in_flight_s: float = IN_FLIGHT_S,
    wait: Callable[[float], bool] = lambda _seconds: False,
) -> tuple[dict[str, Any], list[str]]:
    """Put the index right. Return figures, and what could not be done, in words. Raise AlreadyRunning.

    wait is called with how long to wait for files that are on their way [s]; if it returns true all of it ends.
    """
    found, problems = Found(), list[str]()
    with only_one(database, "reconcile"):
        later = LaterJournal(database, journal, volumes, problems)
        later.adopt()
        volumes.refresh()
        problems += [f"{row.name} is not here: what is on it is not compared." for row in _absent(volumes)]
        arrivals = _arrivals(receipts, volumes.all(), problems)
        orphans = list[_Orphan]()
        for volume in volumes.all():
            try:
                volume.require_present()
                _Beyond(database, volume, found, orphans, arrivals).run()
            except PacsError as error:
                problems.append(str(error))
                log.error("a volume is not compared to its end: %s", error)
        _settle(orphans, in_flight_s, wait, problems)
        found.changes = later.apply()
    log.warning("reconciled after something went back in time", extra=asdict(found))
    return asdict(found), problems


def _absent(volumes: Volumes) -> Iterator[Any]:
    return (row for row in volumes.rows if row.volume_id in volumes.absent)


def _settle(orphans: list[_Orphan], in_flight_s: float, wait: Callable[[float], bool], problems: list[str]) -> None:
    """Index what was gathered, in the order in which it came."""
    for orphan in sorted(orphans, key=lambda each: (each.at, each.path)):
        age_s = (clock.now() - orphan.file.modified_at).total_seconds()
        if 0 <= age_s < in_flight_s and wait(in_flight_s - age_s):
            return
        try:
            orphan.comparison.settle_orphan(orphan.file)
        except PacsError as error:
            problems.append(f"{orphan.path}: {error}")
            log.error("a file without a row is left: %s", error, extra={"path": ascii(orphan.path)})


class _Beyond(Comparison):
    """The comparison of one volume: its files without a row are gathered first."""

    def __init__(
        self, database: Database, volume: Volume, found: Found, orphans: list[_Orphan], arrivals: _Arrivals
    ) -> None:
        super().__init__(database, volume, timedelta(0), found)
        self.found, self.orphans, self.arrivals = found, orphans, arrivals
        self._came_at = {sha256: at for (sha256, _uid), (at, _sender) in arrivals.items()}

    def on_temporary(self, file: FileStatus) -> None:
        """Somebody may be at it; the nightly comparison sees to it."""

    def on_orphan(self, file: FileStatus) -> None:
        """Gather it."""
        sha256 = sha256_in_name(file.path)
        at = self._came_at.get(sha256.hex()) if sha256 else None
        came_at = datetime.fromisoformat(at) if at else file.modified_at
        self.orphans.append(_Orphan(came_at, file.path, file, self))

    def index(
        self, connection: Connection, file: FileStatus, sha256: bytes, transfer_syntax_uid: str, record: IndexRecord
    ) -> bool:
        """Give a file its row: as the nightly comparison does, as of when it came, or as one copy more."""
        uid, volume_id = record.sop_instance_uid, self.volume.volume_id
        known = rows.add_further_copy(connection, uid, sha256, volume_id, file.path)
        if known is not None:
            self.found.further += 1
            self.found.moved += rows.forget_moved(connection, [known])
            return True
        before = self.found.indexed
        is_used = super().index(connection, file, sha256, transfer_syntax_uid, record)
        if self.found.indexed > before:
            self._date(connection, file, sha256, record)
        return is_used

    def _date(self, connection: Connection, file: FileStatus, sha256: bytes, record: IndexRecord) -> None:
        arrival = self.arrivals.get((sha256.hex(), record.sop_instance_uid))
        at, sender = arrival if arrival else (file.modified_at.isoformat(), None)
        key = rows.association_of(connection, sender) if sender else None
        object_key = store_rows.object_key_of(connection, record.sop_instance_uid, sha256)
        if object_key is not None:
            rows.set_arrival(connection, object_key, at, key)


def _arrivals(receipts: Receipts, volumes: Iterable[Volume], problems: list[str]) -> _Arrivals:
    """What the volumes' receipts say that ours do not: of what came after the moment that our disk is of."""
    ours = {segment.name: segment for segment in receipts.segments()}
    found: _Arrivals = {}
    for volume in volumes:
        try:
            for name in segments_on(volume, FOLDER):
                path = f"{FOLDER}/{name}"
                if name not in ours or ours[name].stat().st_size < volume.size_of(path):
                    _take(found, lines_of(volume.read_small(path)))
        except (PacsError, CannotUnderstand) as error:
            problems.append(f"The receipts on {volume.location} cannot be read: {error}")
    return found


def _take(found: _Arrivals, lines: Iterable[Line]) -> None:
    for line in lines:
        for sha256, uid, at in line.get("stored", ()):
            known = found.get((sha256, uid))
            if known is None or at < known[0]:
                found[sha256, uid] = (at, line.get("from"))
