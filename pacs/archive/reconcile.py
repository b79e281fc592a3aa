"""Files against rows, both ways.

A row whose file is gone or has another size is marked, so that nobody is sent to it. A file without a row is what a
kill between rename and commit, or a lost database, leaves: it is read, and indexed if it is whole, as it may be the
only place where an acknowledged object is; if its object has a good copy already, or it cannot be read, it goes to
quarantine. A temporary file was never acknowledged and is removed. Young files are somebody's work and are left.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pacs import clock
from pacs.errors import CannotUnderstand
from pacs.index import store as store_rows
from pacs.index import volumes as rows
from pacs.index.database import Connection, Database
from pacs.model import part10
from pacs.model.attributes import SCANNED_TAGS
from pacs.model.dataset import Scanner
from pacs.model.record import make_record
from pacs.storage.kinds import Volume
from pacs.storage.names import sha256_in_name

log = logging.getLogger(__name__)


@dataclass
class Findings:
    """What a reconciliation found and did."""

    files: int = 0
    copies: int = 0
    missing: int = 0
    found_again: int = 0
    indexed: int = 0
    quarantined: int = 0
    temporary_removed: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether no object was lost."""
        return self.missing == 0


def reconcile(database: Database, volumes: list[Volume], orphan_age_s: float) -> Findings:
    """Compare every file on the volumes with every row, and mend what can be."""
    findings = Findings()
    for volume in volumes:
        volume.require_present()
        with database.transaction() as connection:
            copies = {row["path"]: row for row in rows.copies_on(connection, volume.volume_id)}
        findings.copies += len(copies)
        seen = set()
        for file in volume.walk():
            path = file.path
            findings.files += 1
            seen.add(path)
            row = copies.get(path)
            if row is not None:
                _compare(database, row, file.size_bytes, findings)
            elif (clock.now() - file.modified_at).total_seconds() >= orphan_age_s:
                _settle_orphan(database, volume, path, findings)
        for path, row in copies.items():
            if path not in seen and row["state"] == "good":
                _mark_missing(database, volume, row, path, findings)
    return findings


def _compare(database: Database, row: dict[str, object], size_bytes: int, findings: Findings) -> None:
    state, is_whole = row["state"], size_bytes == row["size_bytes"]
    if state == "good" and not is_whole:
        findings.missing += 1
        log.error("a file has another size than was stored; its copy is out of service", extra={"path": row["path"]})
        _set_state(database, row, "bad")
    elif state == "missing" and is_whole:
        findings.found_again += 1
        _set_state(database, row, "good")


def _mark_missing(database: Database, volume: Volume, row: dict[str, object], path: str, findings: Findings) -> None:
    with database.transaction() as connection:
        now = rows.copy_at(connection, volume.volume_id, path)
        if now is None or now["state"] != "good" or volume.has(path):
            return  # it moved while we looked
        rows.set_copy_state(connection, now["copy_key"], "missing")
    findings.missing += 1
    log.error(
        "a file is missing from the volume at %s", volume.location, extra={"object": row["object_key"], "path": path}
    )


def _set_state(database: Database, row: dict[str, object], state: str) -> None:
    with database.transaction() as connection:
        rows.set_copy_state(connection, int(str(row["copy_key"])), state)


def _settle_orphan(database: Database, volume: Volume, path: str, findings: Findings) -> None:
    if path.startswith("incoming/"):
        volume.remove(path)
        findings.temporary_removed += 1
        return
    with database.transaction() as connection:
        if rows.copy_at(connection, volume.volume_id, path) is not None:
            return  # its row was committed after we listed them
        if _index_orphan(connection, volume, path):
            findings.indexed += 1
            log.warning("a file without a row was indexed", extra={"path": path})
            return
    new_path = volume.quarantine(path)
    findings.quarantined += 1
    log.warning("a file without use was put aside at %s", new_path, extra={"path": path})


def _index_orphan(connection: Connection, volume: Volume, path: str) -> bool:
    """Index a file that has no row; False if it is not whole, or a good copy of its object is there already."""
    sha256 = sha256_in_name(path)
    if sha256 is None or volume.digest_on_disk(path) != sha256:
        return False
    try:
        meta = part10.decode_file_meta(volume.read_start(path, part10.START_BYTES_MAX))
        scanner = Scanner(meta.transfer_syntax_uid, SCANNED_TAGS)
        for chunk in volume.read(path, meta.dataset_offset):
            scanner.feed(memoryview(chunk))
        record = make_record(scanner.finish())
    except CannotUnderstand:
        return False
    file = store_rows.StoredFile(volume.volume_id, path, sha256, volume.size_of(path))
    outcome, _key = store_rows.store(connection, record, meta.transfer_syntax_uid, file, None)
    if outcome == "other":
        outcome, _key = store_rows.store(connection, record, meta.transfer_syntax_uid, file, None, keep_beside=True)
    return outcome == "stored"
