"""Moving settled studies from tier 1 to tier 2.

    copy → fsync → read back past the page cache, compare the digest → commit the new copy
         → take the old one out of service (commit) → ten minutes later remove its file

A kill at any moment leaves at least one verified copy, and at most one row for each copy. Files without a row are
found by reconciliation.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pacs.errors import DigestMismatch, PacsError
from pacs.index import volumes as rows
from pacs.index.database import Database
from pacs.storage.kinds import Volume
from pacs.storage.names import fresh_path

log = logging.getLogger(__name__)

#: How long a file outlives its row [s]: longer than any request that was told its path.
GRACE_S = 600


@dataclass
class Pass:
    """What one look at tier 1 did."""

    studies: int = 0
    objects: int = 0
    size_bytes: int = 0
    failed: int = 0
    removed: int = 0


class Mover:
    """Moves studies between two volumes of one instance."""

    def __init__(self, database: Database, source: Volume, target: Volume, settle_s: float) -> None:
        self.database, self.source, self.target, self.settle_s = database, source, target, settle_s

    def run(self, high_percent: float, low_percent: float) -> Pass:
        """Move the oldest settled studies if the source is fuller than high_percent, until it is at low_percent.

        Copies that have left but whose files are still there for their grace time count as gone.
        """
        done = Pass(removed=self.remove_left(GRACE_S))
        if self.source.room().used_percent < high_percent:
            return done
        to_move = self._bytes_above(low_percent) - self._bytes_leaving()
        with self.database.transaction() as connection:
            studies = rows.settled_studies(connection, self.source.volume_id, self.settle_s)
        for study in studies:
            if done.size_bytes >= to_move:
                break
            self.move_study(study["study_key"], done)
        if done.studies:
            log.info("moved to tier 2", extra={"objects": done.objects, "bytes": done.size_bytes})
        return done

    def move_study(self, study_key: int, done: Pass) -> None:
        """Move one study. An object that cannot be moved stays where it is, and is counted."""
        with self.database.transaction() as connection:
            copies = rows.study_copies_on(connection, study_key, self.source.volume_id)
        for copy in copies:
            try:
                self.move_object(copy["object_key"], copy["path"], bytes(copy["sha256"]), copy["size_bytes"])
            except PacsError as error:
                done.failed += 1
                log.error("an object stays on tier 1: %s", error, extra={"object": copy["object_key"]})
                continue
            done.objects += 1
            done.size_bytes += copy["size_bytes"]
        done.studies += 1

    def move_object(self, object_key: int, path: str, sha256: bytes, size_bytes: int) -> None:
        """Move one object. Raise DigestMismatch if its bytes are not those that were stored."""
        with self.database.transaction() as connection:
            is_there = rows.has_good_copy(connection, object_key, self.target.volume_id)
        if not is_there:
            self._copy(object_key, path, sha256, size_bytes)
        with self.database.transaction() as connection:
            rows.mark_leaving(connection, object_key, self.source.volume_id)

    def _copy(self, object_key: int, path: str, sha256: bytes, size_bytes: int) -> None:
        new_path = fresh_path(path)
        if self.target.put(new_path, self.source.read(path), size_bytes) != sha256:
            self.target.remove(new_path)
            raise DigestMismatch(
                f"A file on the volume at {self.source.location} is not what was stored. "
                "It is left there; look at its disk, and run `pacs reconcile run`."
            )
        if self.target.digest_on_disk(new_path) != sha256:
            self.target.remove(new_path)
            raise DigestMismatch(
                f"The volume at {self.target.location} did not keep what was written. Look at its disk."
            )
        with self.database.transaction() as connection:
            rows.add_copy(connection, object_key, self.target.volume_id, new_path)

    def remove_left(self, grace_s: float) -> int:
        """Remove the files of copies that left the source longer than grace_s ago; return how many."""
        with self.database.transaction() as connection:
            left = rows.leaving_copies(connection, self.source.volume_id, grace_s)
        removed = 0
        for copy in left:
            with self.database.transaction() as connection:
                if not rows.delete_copy(connection, copy["copy_key"]):
                    rows.revive_copy(connection, copy["copy_key"])  # the other copy was lost meanwhile
                    continue
            # A kill here leaves a file without a row: reconciliation finds it.
            self.source.remove(copy["path"])
            removed += 1
        return removed

    def _bytes_above(self, percent: float) -> float:
        room = self.source.room()
        usable_bytes = room.used_bytes + (room.free_bytes or 0)
        return max(0.0, room.used_bytes - usable_bytes * percent / 100)

    def _bytes_leaving(self) -> int:
        with self.database.transaction() as connection:
            return rows.bytes_leaving(connection, self.source.volume_id)
