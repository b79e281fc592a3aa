"""Files against rows, both ways, on every volume.

Both come in the order of their paths and are compared as they come, so that ten million of them need no more memory
than ten. A row whose file is gone or has another size is marked, so that nobody is sent to it, and is repaired
(archive/repair.py). A file without a row is what a kill between rename and commit, or a lost database, leaves: it is
read, and indexed if it is whole, as it may be the only place where an acknowledged object is; if its object has a good
copy already, or it cannot be read, it goes to quarantine. A temporary file was never acknowledged and is removed. Young
files are somebody's work and are left.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from pacs import clock
from pacs.errors import CannotUnderstand, DigestMismatch, NotFound, PacsError, VolumeFailed
from pacs.index import copies as rows
from pacs.index import damage, movement
from pacs.index import store as store_rows
from pacs.index.database import Connection, Database, Row
from pacs.index.locks import only_one
from pacs.index.runs import rebuilt_without
from pacs.index.volumes import REPOSITORY_ROLE
from pacs.model import part10
from pacs.model.attributes import SCANNED_TAGS
from pacs.model.dataset import Scanner
from pacs.model.record import IndexRecord, make_record
from pacs.storage.kinds import FileStatus, Volume
from pacs.storage.names import sha256_in_name

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 5000


@dataclass
class Findings:
    """What a reconciliation found and did."""

    files: int = 0
    copies: int = 0
    missing: int = 0
    found_again: int = 0
    indexed: int = 0
    #: Whole files that were taken for the lost copies of their objects.
    adopted: int = 0
    quarantined: int = 0
    temporary_removed: int = 0
    #: Files without a row that could not be read: left where they are.
    unreadable: int = 0
    #: Volumes that were not compared to their end, and why.
    failed: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether all was compared, and no file lost."""
        return self.missing == 0 and self.unreadable == 0 and not self.failed


def reconcile(database: Database, volumes: Iterable[Volume], orphan_age_s: float) -> Findings:
    """Compare every file on the volumes with every row, and mend what can be. Raise AlreadyRunning."""
    findings = Findings()
    with only_one(database, "reconcile"):
        left_out = rebuilt_without(database)
        for volume in volumes:
            try:
                volume.require_present()
                compared = Comparison(database, volume, timedelta(seconds=orphan_age_s), findings)
                compared.may_have_copies |= volume.volume_id in left_out
                compared.run()
            except PacsError as error:
                findings.failed.append(str(error))
                log.error("a volume is not compared to its end: %s", error)
    return findings


class Comparison:
    """Of one volume. After something went back in time it is done in another way (archive/reverted.py)."""

    def __init__(self, database: Database, volume: Volume, orphan_age: timedelta, findings: Findings) -> None:
        self.database, self.volume, self.orphan_age, self.findings = database, volume, orphan_age, findings
        #: A file without a row may be a copy of an object that has one elsewhere: in a repository, which has every
        #: object, and on a volume that was away when the index was rebuilt. Elsewhere it is what a move left behind.
        self.may_have_copies = REPOSITORY_ROLE in volume.identity.roles

    def run(self) -> None:
        """Compare all of it. Raise VolumeMissing or VolumeFailed."""
        copies = self._copies()
        row = next(copies, None)
        last = b""
        for file in self.volume.walk():
            self.findings.files += 1
            if file.path.startswith("incoming/"):
                self.on_temporary(file)
                continue
            last = self._require_order(last, file.path)
            while row is not None and _key(row["path"]) < _key(file.path):
                self._missing(row)
                row = next(copies, None)
            if row is not None and row["path"] == file.path:
                self._compare(row, file)
                row = next(copies, None)
            else:
                self.on_orphan(file)
        while row is not None:
            self._missing(row)
            row = next(copies, None)

    def _copies(self) -> Iterator[Row]:
        """The rows of the copies on the volume by path, some at a time: nobody waits for a long transaction."""
        position = ""
        while True:
            with self.database.transaction() as connection:
                found = rows.copies_after(connection, self.volume.volume_id, position, ROWS_AT_ONCE)
            if not found:
                return
            self.findings.copies += len(found)
            yield from found
            position = found[-1]["path"]

    def _compare(self, row: Row, file: FileStatus) -> None:
        is_whole = file.size_bytes == row["size_bytes"]
        if row["state"] == "good" and not is_whole:
            self.findings.missing += 1
            log.error("a file has another size than was stored; its copy is out of service", extra={"path": file.path})
            self._set_state(row, "good", "bad")
        elif row["state"] == "missing" and is_whole and self._has_digest(file.path, bytes(row["sha256"])):
            self.findings.found_again += 1
            with self.database.transaction() as connection:
                damage.put_in_service(connection, row["copy_key"], row["path"], row["path"], "found well")

    def _has_digest(self, path: str, sha256: bytes) -> bool:
        try:
            return self.volume.digest_on_disk(path) == sha256
        except DigestMismatch:  # what is sealed, and was changed
            return False

    def _missing(self, row: Row) -> None:
        # What lies in quarantine and has a row is out of service already.
        if row["state"] != "good" or not row["path"].startswith("objects/") or self.volume.has(row["path"]):
            return
        self.volume.require_present()
        if self._set_state(row, "good", "missing"):
            self.findings.missing += 1
            log.error(
                "a file is missing from the volume at %s", self.volume.location,
                extra={"object": row["object_key"], "path": row["path"]},
            )  # fmt: skip

    def _set_state(self, row: Row, old: str, new: str) -> bool:
        """Set a copy's state unless it moved while we looked."""
        with self.database.transaction() as connection:
            return rows.change_copy_state(connection, row["copy_key"], row["path"], old, new)

    def _require_order(self, last: bytes, path: str) -> bytes:
        """Raise VolumeFailed if a file comes out of order: whole files would be taken for missing."""
        if _key(path) <= last:
            raise VolumeFailed(f"The volume at {self.volume.location} does not list its files in order.")
        return _key(path)

    def on_temporary(self, file: FileStatus) -> None:
        """A file that somebody has begun."""
        if clock.now() - file.modified_at >= self.orphan_age:
            self.volume.remove(file.path)
            self.findings.temporary_removed += 1

    def on_orphan(self, file: FileStatus) -> None:
        """A file without a row."""
        if clock.now() - file.modified_at >= self.orphan_age:
            self.settle_orphan(file)

    def settle_orphan(self, file: FileStatus) -> None:
        """Index it, or put it aside."""
        try:
            found = self._read_orphan(file.path) if file.is_plain else None
        except VolumeFailed as error:
            self.findings.unreadable += 1
            log.error("a file without a row is left: %s", error, extra={"path": ascii(file.path)})
            return
        if file.path.isprintable():  # no other has a row, and the index takes not all of them
            with self.database.transaction() as connection:
                if rows.has_copy_at(connection, self.volume.volume_id, file.path):
                    return  # its row was committed after we listed them
                if found is not None and self.index(connection, file, *found):
                    return
        self._put_aside(file.path)

    def _put_aside(self, path: str) -> None:
        try:
            new_path = self.volume.quarantine(path)
        except PacsError:
            if not self.volume.has(path):
                return  # its owner has removed it meanwhile
            raise
        self.findings.quarantined += 1
        log.warning("a file without use was put aside at %s", ascii(new_path), extra={"path": ascii(path)})

    def _read_orphan(self, path: str) -> tuple[bytes, str, IndexRecord] | None:
        """Digest, transfer syntax and record of a file that is the object that its name says; else None."""
        sha256 = sha256_in_name(path)
        try:
            if sha256 is None or not self._has_digest(path, sha256):
                return None
            meta = part10.decode_file_meta(self.volume.read_start(path, part10.START_BYTES_MAX))
            scanner = Scanner(meta.transfer_syntax_uid, SCANNED_TAGS)
            for chunk in self.volume.read(path, meta.dataset_offset):
                scanner.feed(memoryview(chunk))
            return sha256, meta.transfer_syntax_uid, make_record(scanner.finish())
        except (CannotUnderstand, NotFound, DigestMismatch):
            return None

    def index(
        self, connection: Connection, file: FileStatus, sha256: bytes, transfer_syntax_uid: str, record: IndexRecord
    ) -> bool:
        """Give a whole file without a row its row; False if a good copy of its object is there already."""
        volume_id, uid = self.volume.volume_id, record.sop_instance_uid
        if damage.adopt(connection, uid, sha256, volume_id, file.path):
            self.findings.adopted += 1
            log.warning("a file without a row was taken for its object's lost copy", extra={"path": file.path})
            return True
        stored = store_rows.StoredFile(volume_id, file.path, sha256, file.size_bytes)
        outcome, key = store_rows.store(connection, record, transfer_syntax_uid, stored, None)
        if outcome == "other":
            outcome, key = store_rows.store(connection, record, transfer_syntax_uid, stored, None, keep_beside=True)
        if outcome != "stored":
            return self.may_have_copies and bool(movement.add_copies(connection, volume_id, [(key, file.path)]))
        self.findings.indexed += 1
        log.warning("a file without a row was indexed", extra={"path": file.path})
        return True


def _key(path: str) -> bytes:
    """Paths are in the order of their bytes, on volumes and in the index."""
    return path.encode("utf-8", "surrogateescape")
