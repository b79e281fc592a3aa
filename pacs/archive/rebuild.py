"""The index made anew from the volumes alone: what the files say, when they came, and what people decided since.

    journal read (unknown events: refused) ─▶ volumes opened (missing: refused) ─▶ receipts taken in
        ─▶ day of arrival by day: files read in all processes ─▶ stored in the order in which they came, the journal's
           decisions in between ─▶ devices and the rest of the journal ─▶ references checked

It works on a database of its own. Killed at any moment, it goes on where it was when it is started again, by the units
that were read and the days that were stored; the index that is there is not touched before the very end.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any

from pacs import clock
from pacs.archive.rebuild_files import Unit, UnitDone, days_on, read_record, units_of
from pacs.archive.rebuild_receipts import ReceiptLoader
from pacs.archive.receipts import lines as receipt_lines
from pacs.archive.replay import Journalled
from pacs.archive.volumes import Volumes
from pacs.index import audit as audit_rows
from pacs.index import rebuild as rows
from pacs.index import rebuilt
from pacs.index import receipts as receipt_rows
from pacs.index.database import Connection, Database, Row
from pacs.index.runs import insert_run
from pacs.index.store import fields_of
from pacs.storage.receipts import Receipts

log = logging.getLogger(__name__)

#: How many of what was left out, or is missing, are told one by one.
TOLD_MAX = 1000
#: What is given out to be read beforehand, in units a process.
_UNITS_AHEAD = 8
_RECEIPTS_AT_ONCE = 10_000


@dataclass
class Progress:
    """How far a rebuild is."""

    what: str = "looking"
    days: int = 0
    days_done: int = 0
    files: int = 0
    size_bytes: int = 0


Tell = Callable[[Progress], None]


@dataclass
class Outcome:
    """What a rebuild came to."""

    rebuild: str
    studies: int = 0
    objects: int = 0
    copies: int = 0
    #: Files read by this run, which may have gone on from another.
    files: int = 0
    seconds: float = 0
    trusted_names: bool = False
    without_volumes: list[str] = field(default_factory=list)
    #: Objects without a receipt: they have their file's time and no sender.
    unreceipted: int = 0
    #: Objects of which receipts tell and that are on no volume here.
    missing: int = 0
    missing_objects: list[dict[str, str]] = field(default_factory=list)
    #: Files that are not whole, or nobody's; reconciliation and the scrub put them aside.
    left_out: int = 0
    left_out_files: list[dict[str, str]] = field(default_factory=list)
    #: Files of objects that have a copy on the same volume already; reconciliation puts them aside.
    spare: int = 0
    #: What the journal says and could not be done.
    problems: list[str] = field(default_factory=list)


class Reading:
    """Hands units to whoever reads them, and gives back what became of them."""

    def submit(self, unit: Unit) -> Callable[[], UnitDone]:
        """Have a unit read; the result is what waits for it."""
        raise NotImplementedError


class Rebuild:
    """One rebuild, into the database that it is given."""

    def __init__(
        self,
        database: Database,
        volumes: Volumes,
        journalled: Journalled,
        receipts: Receipts,
        reading: Reading,
        processes: int,
    ) -> None:
        self.database, self.volumes, self.journalled, self.receipts = database, volumes, journalled, receipts
        self.reading, self.processes = reading, processes
        self.progress = Progress()

    def run(self, outcome: Outcome, tell: Tell = lambda _progress: None) -> Outcome:
        """Make the index; return what it came to. Raise VolumeError or DatabaseUnavailable: then it can go on later."""
        started, began_s = clock.now(), clock.monotonic_s()
        rows.prepare(self.database)
        self._load_receipts(tell)
        folders = self._days()
        with self.database.transaction() as connection:
            done = rows.days_done(connection)
        self.progress.days, self.progress.days_done = len(folders), len(done & folders.keys())
        self._run_days([day for day in sorted(folders) if day not in done], folders, tell)
        self.progress.what = "checking"
        tell(self.progress)
        outcome.files, outcome.seconds = self.progress.files, clock.monotonic_s() - began_s
        self._finish(outcome, started)
        return outcome

    def _load_receipts(self, tell: Tell) -> None:
        with self.database.transaction() as connection:
            if rows.state(connection, "receipts"):
                return
        self.progress.what = "receipts"
        tell(self.progress)
        ReceiptLoader().run(self.database, self.receipts, self.volumes.all())

    def _days(self) -> dict[date, dict[str, list[str]]]:
        """Day → volume → the folders of that day on it."""
        found: dict[date, dict[str, list[str]]] = {}
        for volume in self.volumes.all():
            for day, folder in days_on(volume):
                found.setdefault(day, {}).setdefault(volume.volume_id, []).append(folder)
        return found

    # --- day by day ---------------------------------------------------------------------------------------------------

    def _run_days(self, days: list[date], folders: dict[date, dict[str, list[str]]], tell: Tell) -> None:
        """Have the days read, some ahead, and store them in order."""
        self.progress.what = "rebuilding"
        begun: deque[tuple[date, deque[Callable[[], UnitDone]]]] = deque()
        waiting = deque(days)
        while waiting or begun:
            ahead = sum(len(units) for _day, units in begun)
            while waiting and (not begun or ahead < _UNITS_AHEAD * max(1, self.processes)):
                day = waiting.popleft()
                units = self._begin_day(day, folders[day])
                begun.append((day, units))
                ahead += len(units)
            day, units = begun[0]
            while units:
                done = units.popleft()()
                self.progress.files += done.files
                self.progress.size_bytes += done.size_bytes
                tell(self.progress)
            begun.popleft()
            self._store_day(day, is_last=not (waiting or begun))
            self.progress.days_done += 1
            tell(self.progress)

    def _begin_day(self, day: date, folders: dict[str, list[str]]) -> deque[Callable[[], UnitDone]]:
        read_before = rows.begin_day(self.database, day)
        return deque(
            self.reading.submit(unit)
            for volume_id, its_folders in sorted(folders.items())
            for unit in units_of(self.volumes.get(volume_id), day, its_folders)
            if unit.name not in read_before
        )

    def _store_day(self, day: date, is_last: bool) -> None:
        """Store a day's objects, and what was decided in between. In one transaction."""
        until = None if is_last else datetime.combine(day + timedelta(days=1), time(), UTC)
        with self.database.transaction() as connection:
            rows.begin_load(connection, day)
            applied = int(rows.state(connection, "applied") or 0)
            while applied < len(self.journalled.in_order):
                at = self.journalled.in_order[applied]["at"]
                if until is not None and at >= until:
                    break
                self._store_until(connection, day, at)
                self._apply(connection, applied)
                rows.forget_placed(connection)
                applied += 1
            self._store_until(connection, day, until)
            rows.end_load(connection, day, until)
            rows.put_state(connection, "applied", applied)

    def _store_until(self, connection: Connection, day: date, until: datetime | None) -> None:
        for row in rows.make_segment(connection, until):
            volume = self.volumes.get(row["volume_id"])
            meta, record = read_record(volume, row["path"], None, row["character_set"])
            tenant_id = int(row["path"].split("/")[1])
            rows.put_fields(connection, day, row["file_key"], fields_of(record, meta.transfer_syntax_uid, tenant_id))
        rows.load_segment(connection, until)

    def _apply(self, connection: Connection, number: int) -> None:
        problem = self.journalled.apply(connection, number)
        if problem:
            rows.put_state(connection, "problems", [*(rows.state(connection, "problems") or []), problem])

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self, outcome: Outcome, started: datetime) -> None:
        with self.database.transaction() as connection:
            for number in range(int(rows.state(connection, "applied") or 0), len(self.journalled.in_order)):
                self._apply(connection, number)  # there was no day to do it in
            outcome.problems = [
                *(rows.state(connection, "problems") or []), *self.journalled.standing.write(connection)
            ]  # fmt: skip
            self._tell_what_is_not_there(connection, outcome)
            # Written now, so that the next rebuild finds the same order. Twice is no harm.
            found = rebuilt.unreceipted(connection)
            while part := list(islice(found, _RECEIPTS_AT_ONCE)):
                self.receipts.append(receipt_lines(part, []))
                outcome.unreceipted += len(part)
            rebuilt.finish(connection)
            receipt_rows.move_marks(connection, *receipt_rows.newest_keys(connection))
            audit_rows.move_mark(connection, *receipt_rows.newest_keys(connection))
            insert_run(connection, "rebuild", started, True, asdict(outcome))

    def _tell_what_is_not_there(self, connection: Connection, outcome: Outcome) -> None:
        counts = rebuilt.counts(connection)
        outcome.studies, outcome.objects, outcome.copies = counts["studies"], counts["objects"], counts["copies"]
        outcome.spare = counts["spare"]
        outcome.missing, missing = rebuilt.without_file(connection, TOLD_MAX)
        outcome.left_out, left_out = rebuilt.left_out(connection, TOLD_MAX)
        outcome.missing_objects, outcome.left_out_files = _words(missing), _words(left_out)


def _words(found: Sequence[Row]) -> list[dict[str, str]]:
    return [{name: _word(value) for name, value in row.items()} for row in found]


def _word(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
