"""Scrubbing: every copy on every volume is read past the caches again and again, and its digest compared.

A volume is read folder by folder, a day's arrivals each, in the order of the disk. When a folder was read is kept a
folder, not a copy (pacs/index/fixity.py): what is read must not cost a write for each object. A kill loses two batches
at most, which are read again. A copy that is missing or bad is taken out of service at once; the repair
(archive/repair.py) does the rest. Nothing on a volume is changed here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from pacs import clock
from pacs.archive.pace import Pace
from pacs.archive.scrub_reading import Expected, Outcome, Readers, in_processes, in_threads
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError, VolumeError, VolumeFailed
from pacs.index import fixity as rows
from pacs.index.database import Database, Row
from pacs.index.locks import only_one
from pacs.index.retrieve import withdraw_copy
from pacs.model.scrub_plan import Folder, make_plan
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)

#: What is read between two notes of how far it is: so many copies, or so many bytes if that is less.
BATCH_COPIES = 2000
BATCH_BYTES = 1 << 30
#: With more copies to be read than this, starting processes takes less time than they save.
PROCESSES_FROM_COPIES = 20_000
#: If not one of so many files can be read, it is the volume's fault.
_UNREADABLE_MAX = 50
#: How old the count of what is in a folder may be.
COUNT_AGE = timedelta(days=7)


@dataclass
class Findings:
    """What a scrub read and found."""

    folders: int = 0
    copies: int = 0
    size_bytes: int = 0
    bad: int = 0
    missing: int = 0
    #: Volumes that could not be read, and why.
    failed: list[str] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether all that was to be read was read, and was good."""
        return not (self.bad or self.missing or self.failed)


@dataclass(frozen=True)
class _Batch:
    """Copies of a folder that are being read, in the order of the disk, and the path up to which it is read then."""

    folder: str
    position: str
    copies: list[Row]
    outcome: Outcome

    @property
    def is_last(self) -> bool:
        return not self.copies


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scrub is: of the volume it reads, and of the whole run [bytes]."""

    location: str
    done_bytes: int
    total_bytes: int


class Scrub:
    """Reads copies on an instance's volumes."""

    def __init__(
        self,
        database: Database,
        volumes: Volumes,
        period: timedelta,
        rate_bytes_s: float | None = None,
        on_progress: Callable[[Progress], None] = lambda _progress: None,
    ) -> None:
        """period: how soon every copy is read again. No rate: no limit."""
        self.database, self.volumes, self.period, self.on_progress = database, volumes, period, on_progress
        self._pace = Pace(rate_bytes_s)

    def run(self, everything: bool = False, volume_id: str | None = None) -> Findings:
        """Read today's share; or everything, or only one volume's. Raise AlreadyRunning, NotFound."""
        findings, started_s = Findings(), clock.monotonic_s()
        with only_one(self.database, "scrub"):
            wanted = [volume_id] if volume_id else list(self.volumes.by_id)
            here = [each for each in wanted if self._is_here(each, findings)]
            for each in here:
                rows.refresh_folders(self.database, each, COUNT_AGE)
            self._read(self._chosen(rows.folders(self.database, here), everything, clock.now()), findings)
        findings.duration_s = round(clock.monotonic_s() - started_s, 3)
        return findings

    def _is_here(self, volume_id: str, findings: Findings) -> bool:
        try:
            self.volumes.get(volume_id).require_present()
        except PacsError as error:
            self._note_failed(error, findings)
            return False
        return True

    def _chosen(self, folders: Sequence[Folder], everything: bool, now: datetime) -> list[Folder]:
        chosen = folders if everything else make_plan(folders, now, self.period).folders
        return sorted(chosen, key=lambda each: (each.volume_id, each.folder))

    def _read(self, folders: list[Folder], findings: Findings) -> None:
        total_bytes = sum(folder.size_bytes for folder in folders)
        for volume_id, group in groupby(folders, key=lambda each: each.volume_id):
            volume, of_volume = self.volumes.get(volume_id), list(group)
            try:
                with self._readers(volume, of_volume) as readers:
                    for done_bytes in self._read_volume(readers, volume, of_volume, findings):
                        self.on_progress(Progress(volume.location, done_bytes, max(total_bytes, done_bytes)))
            except (VolumeError, VolumeFailed) as error:
                self._note_failed(error, findings)

    def _readers(self, volume: Volume, folders: Sequence[Folder]) -> AbstractContextManager[Readers]:
        """Processes where many copies lie on a disk and there is no limit: threads come to half of what it can."""
        is_many = sum(folder.copies for folder in folders) > PROCESSES_FROM_COPIES
        if is_many and volume.promise.kind == "local" and not self._pace.rate_bytes_s:
            return in_processes(self.database, self.volumes)
        return in_threads(volume, self._pace.spend)

    def _note_failed(self, error: PacsError, findings: Findings) -> None:
        findings.failed.append(str(error))
        log.error("a volume is not read to its end: %s", error)

    def _read_volume(
        self, readers: Readers, volume: Volume, folders: list[Folder], findings: Findings
    ) -> Iterator[int]:
        """Read folders of a volume; say after each batch how much was read of all [bytes]."""
        for batch in _one_ahead(self._begun(readers, volume, [folder.folder for folder in folders])):
            self._judge(volume, batch, findings)
            if batch.is_last:
                volume.require_present()  # what was read was read of this volume, to the last
                rows.complete(self.database, volume.volume_id, batch.folder)
                findings.folders += 1
            else:
                rows.came_to(self.database, volume.volume_id, batch.folder, batch.position)
                yield findings.size_bytes

    def _begun(self, readers: Readers, volume: Volume, folders: list[str]) -> Iterator[_Batch]:
        """Batches of copies, each begun to be read when it is asked for; after a folder's last an empty one."""
        for folder in folders:
            position = rows.begin(self.database, volume.volume_id, folder)
            while listed := self._listed(volume.volume_id, folder, position):
                position = listed[-1]["path"]
                # Within a study in the order of their arrival, as they lie on the disk; their names are digests.
                ordered = sorted(listed, key=lambda row: (row["path"].rpartition("/")[0], row["copy_key"]))
                expected = [Expected(number, row["path"], bytes(row["sha256"])) for number, row in enumerate(ordered)]
                yield _Batch(folder, position, ordered, readers.begin(volume, expected))
            yield _Batch(folder, position, [], list)

    def _listed(self, volume_id: str, folder: str, position: str) -> list[Row]:
        batch: list[Row] = []
        size_bytes = 0
        for row in rows.copies_after(self.database, volume_id, folder, position, BATCH_COPIES):
            batch.append(row)
            size_bytes += row["size_bytes"]
            if size_bytes >= BATCH_BYTES:
                break
        return batch

    def _judge(self, volume: Volume, batch: _Batch, findings: Findings) -> None:
        """Wait until a batch of copies is read; take those that are missing or bad out of service."""
        faults = batch.outcome()
        if faults:
            volume.require_present()  # else it is the disk that was pulled out, and no file
            unreadable = sum(isinstance(fault.error, VolumeFailed) for fault in faults)
            if unreadable == len(batch.copies) >= _UNREADABLE_MAX:
                raise VolumeFailed(f"Nothing on the volume at {volume.location} can be read. Look at its disk.")
            for fault in faults:
                self._withdraw(volume, batch.copies[fault.number], fault.state, fault.error, findings)
        findings.copies += len(batch.copies)
        findings.size_bytes += sum(row["size_bytes"] for row in batch.copies)

    def _withdraw(self, volume: Volume, row: Row, state: str, error: PacsError | None, findings: Findings) -> None:
        with self.database.transaction() as connection:
            if not withdraw_copy(connection, row["copy_key"], row["path"], state):
                return  # it moved while we read
        if state == "missing":
            findings.missing += 1
        else:
            findings.bad += 1
        log.error(
            "a copy on the volume at %s is %s and out of service: %s",
            volume.location, state, error or "it has other bytes than were stored",
            extra={"object": row["object_key"], "path": row["path"]},
        )  # fmt: skip


def _one_ahead(batches: Iterable[_Batch]) -> Iterator[_Batch]:
    """The batches, the next of which is begun before one is waited for: so nobody who reads waits for the database."""
    before: _Batch | None = None
    for batch in batches:
        if before is not None:
            yield before
        before = batch
    if before is not None:
        yield before
