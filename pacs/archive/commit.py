"""Storage commitment: is each object that a device names safe? Answered by reading it again from its volume.

An object is committed to when a good copy of every content that came under its UID has been read past the page cache
and has the SHA-256 of its row. A copy that is found missing or wrong is taken out of service, so that the device's
next sending heals it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pacs.archive.volumes import Volumes
from pacs.errors import DigestMismatch, NotFound, TryAgainLater, VolumeFailed, VolumeMissing
from pacs.index import commitments as rows
from pacs.index.commitments import Reference
from pacs.index.database import Database, Row
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)

COMMITTED = 0
# Failure reasons, PS3.3 C.14.1.1.
PROCESSING_FAILURE, NO_SUCH_OBJECT, CLASS_INSTANCE_CONFLICT = 0x0110, 0x0112, 0x0119
DUPLICATE_TRANSACTION_UID = 0x0131
_OBJECTS_AT_ONCE = 100


class NotNow(TryAgainLater):
    """An object cannot be read now, and may be in a while: its volume is not here."""


class Verifier:
    """Reads objects again."""

    def __init__(self, database: Database, volumes: Volumes) -> None:
        self.database, self.volumes = database, volumes

    def reasons(self, referenced: Sequence[Reference], on_progress: Callable[[], None]) -> list[int]:
        """Beside each reference COMMITTED or its failure reason. Calls on_progress after each object.

        Raise NotNow or DatabaseUnavailable if it cannot be said now.
        """
        found: list[int] = []
        for start in range(0, len(referenced), _OBJECTS_AT_ONCE):
            part = referenced[start : start + _OBJECTS_AT_ONCE]
            objects: dict[str, list[Row]] = {}
            for row in rows.objects_named(self.database, {instance for _class, instance in part}):
                objects.setdefault(row["sop_instance_uid"], []).append(row)
            for sop_class, instance in part:
                found.append(self._reason(sop_class, objects.get(instance, [])))
                on_progress()
        return found

    def _reason(self, sop_class_uid: str, objects: list[Row]) -> int:
        if not objects:
            return NO_SUCH_OBJECT
        objects = [row for row in objects if row["sop_class_uid"] == sop_class_uid]
        if not objects:
            return CLASS_INSTANCE_CONFLICT
        # Which of several contents the device sent is not known here: all of them must be safe.
        return COMMITTED if all(self._is_safe(row) for row in objects) else PROCESSING_FAILURE

    def _is_safe(self, row: Row) -> bool:
        is_absent = False
        for _look in range(2):  # a copy may move to another tier between the look at its row and its file
            for copy in rows.good_copies_of(self.database, row["object_key"]):
                try:
                    if self._has_digest(self.volumes.get(copy["volume_id"]), copy, row):
                        return True
                except VolumeMissing:
                    is_absent = True
        if is_absent:
            raise NotNow("An object is on a volume that is not attached here. Attach its disk.")
        return False

    def _has_digest(self, volume: Volume, copy: Row, row: Row) -> bool:
        volume.require_present()
        try:
            if volume.digest_on_disk(copy["path"]) == bytes(row["sha256"]):
                return True
            state, what = "bad", "has other bytes than were stored"
        except NotFound:
            state, what = "missing", "is missing"
        except (VolumeFailed, DigestMismatch):
            state, what = "bad", "cannot be read"
        volume.require_present()  # it is the file's fault, not that of a disk that was just pulled out
        if rows.take_out_of_service(self.database, copy["copy_key"], copy["path"], state):
            log.error(
                "a file on the volume at %s %s; its copy is out of service. Look at its disk.",
                volume.location,
                what,
                extra={"object": row["object_key"], "path": copy["path"]},
            )
        return False
