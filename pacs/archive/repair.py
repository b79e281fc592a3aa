"""Repair: a copy that is missing or bad is written anew from another one of its object.

    read a source, its digest compared while it is read → written under a new path, fsynced → read back past the caches
        → commit → the bad file goes to quarantine

A copy whose own file turns out to be whole (a cable, a mount, a right that was wrong for a while) is only taken back
into service. What has no source is moved to quarantine if its bytes are proven wrong, stays out of service, and is
tried again, later each time, and whenever the modality sends it again (pacs_store_again). Nothing is ever removed here
but a file that this repair has written itself and not committed. A kill at any moment leaves what was there, and
perhaps a file without a row, which reconciliation takes for the copy or puts aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pacs import clock
from pacs.archive.pace import Pace
from pacs.errors import DigestMismatch, NotFound, PacsError, VolumeError, VolumeFailed, VolumeMissing
from pacs.index import damage as rows
from pacs.index.database import Database, Row
from pacs.index.locks import only_one
from pacs.index.retrieve import withdraw_copy
from pacs.index.volumes import REPOSITORY_TIER
from pacs.model.record import study_key
from pacs.storage.kinds import Volume
from pacs.storage.names import fresh_path, object_path, repository_path

log = logging.getLogger(__name__)

_AT_ONCE = 500
Outcome = Literal["repaired", "found well", "not now"]


@dataclass
class Repairs:
    """What a repair did. waiting: copies that could not be repaired now."""

    repaired: int = 0
    found_well: int = 0
    quarantined: int = 0
    waiting: int = 0
    size_bytes: int = 0

    @property
    def did_anything(self) -> bool:
        """Whether a copy changed."""
        return bool(self.repaired or self.found_well or self.quarantined)


class Repair:
    """Repairs copies on an instance's volumes."""

    def __init__(
        self,
        database: Database,
        volumes: Mapping[str, Volume],
        rate_bytes_s: float | None = None,
    ) -> None:
        """volumes by their id, those that are here, the repositories among them. No rate: no limit."""
        self.database, self.volumes = database, volumes
        self._pace = Pace(rate_bytes_s)

    def run(self, at_once: bool = False, duration_s_max: float | None = None) -> Repairs:
        """Repair what is due; at_once: also what waits for its next try. Raise AlreadyRunning.

        duration_s_max: begin nothing new after so long.
        """
        done, last_key, started_s = Repairs(), 0, clock.monotonic_s()
        if not rows.due_damage(self.database, 1, at_once):
            return done  # nearly always; the lock costs a connection
        with only_one(self.database, "repair"):
            while damaged := rows.due_damage(self.database, _AT_ONCE, at_once, last_key):
                for row in damaged:
                    if duration_s_max is not None and clock.monotonic_s() - started_s > duration_s_max:
                        return done
                    self._repair(row, done)
                last_key = damaged[-1]["copy_key"]
        return done

    def _repair(self, row: Row, done: Repairs) -> None:
        try:
            outcome = self._mend(row, done)
        except PacsError as error:
            done.waiting += 1
            rows.put_off(self.database, row["copy_key"], str(error))
            log.error("a copy cannot be repaired now: %s", error, extra={"object": row["object_key"]})
            return
        if outcome == "repaired":
            done.repaired += 1
            done.size_bytes += row["size_bytes"]
        else:
            done.found_well += 1
        log.warning("a copy is back in service: %s", outcome, extra={"object": row["object_key"], "path": row["path"]})

    def _mend(self, row: Row, done: Repairs) -> Outcome:
        volume = self.volumes.get(row["volume_id"])
        if volume is None:
            raise VolumeMissing("A copy's volume is not here. Attach its disk.")
        volume.require_present()
        own = self._look(volume, row)
        if own == "good" and row["path"].startswith("objects/"):
            if self._commit(row, row["path"], "found well"):
                return "found well"
            raise NotFound("The copy changed meanwhile.")
        try:
            new_path = self._write_anew(volume, row, own)
        except NotFound:
            self._put_aside(volume, row, own, done)
            raise
        if not self._commit(row, new_path, "repaired"):
            volume.remove(new_path)  # somebody else was faster: another sending, a move
            raise NotFound("The copy changed meanwhile.")
        self._quarantine_old(volume, row, done)
        return "repaired"

    def _look(self, volume: Volume, row: Row) -> Literal["good", "bad", "missing", "unreadable"]:
        """How a copy's own file is."""
        try:
            is_good = volume.digest_on_disk(row["path"], self._pace.spend) == bytes(row["sha256"])
            return "good" if is_good else "bad"
        except NotFound:
            return "missing"
        except DigestMismatch:  # what is sealed, and was changed
            return "bad"
        except VolumeError:
            raise
        except PacsError:
            volume.require_present()
            return "unreadable"

    def _write_anew(self, volume: Volume, row: Row, own: str) -> str:
        """Write the object again to a volume, proven; return the new path. Raise NotFound if there is no source."""
        reasons: list[str] = []
        if own == "good":  # in quarantine, and whole after all
            return self._put(volume, volume.read(row["path"]), row)
        with self.database.transaction() as connection:
            copies = rows.sources(connection, row["object_key"], row["copy_key"])
        for copy in copies:
            source = self.volumes.get(copy["volume_id"])
            if source is None:
                reasons.append("another copy is on a volume that is not here")
                continue
            try:
                return self._put(volume, source.read(copy["path"]), row)
            except (DigestMismatch, NotFound, _SourceFailed) as error:
                self._doubt(source, copy, row, error)
                reasons.append(str(error))
        raise NotFound(f"No other good copy of the object is at hand ({'; '.join(reasons) or 'there is none'}).")

    def _put(self, volume: Volume, chunks: Iterator[bytes], row: Row) -> str:
        """Write an object's bytes under a new path and read them back; return it. What is not proven is removed."""
        sha256, path = bytes(row["sha256"]), _new_path(row)
        given = volume.put(path, self._proven(chunks, sha256, row["size_bytes"]), row["size_bytes"])
        try:
            if given != sha256 or volume.digest_on_disk(path, self._pace.spend) != sha256:
                raise VolumeFailed(f"The volume at {volume.location} did not keep what was written. Look at its disk.")
        except BaseException:
            with contextlib.suppress(PacsError):
                volume.remove(path)
            raise
        return path

    def _proven(self, chunks: Iterator[bytes], sha256: bytes, size_bytes: int) -> Iterator[bytes]:
        """The chunks, at the limited rate; raise at their end if they were not the object, before it gets a name."""
        digest, left = hashlib.sha256(), size_bytes
        while True:
            try:
                chunk = next(chunks, None)
            except NotFound:
                raise
            except VolumeError:  # it is gone, and its copies are as good as they were
                raise
            except PacsError as error:
                raise _SourceFailed(str(error)) from error
            if chunk is None:
                break
            left -= len(chunk)
            if left < 0:
                break
            digest.update(chunk)
            self._pace.spend(len(chunk))
            yield chunk
        if left != 0 or digest.digest() != sha256:
            raise DigestMismatch("A source has other bytes than were stored. Look at its disk.")

    def _doubt(self, source: Volume, copy: Row, row: Row, error: PacsError) -> None:
        """Take a source out of service that was not there, could not be read or was wrong: its own repair comes."""
        source.require_present()
        state = "missing" if isinstance(error, NotFound) else "bad"
        with self.database.transaction() as connection:
            if withdraw_copy(connection, copy["copy_key"], copy["path"], state):
                log.error(
                    "a copy on the volume at %s is %s and out of service", source.location, state,
                    extra={"object": row["object_key"], "path": copy["path"]},
                )  # fmt: skip

    def _commit(self, row: Row, new_path: str, outcome: Outcome) -> bool:
        with self.database.transaction() as connection:
            return rows.put_in_service(connection, row["copy_key"], row["path"], new_path, outcome)

    def _quarantine_old(self, volume: Volume, row: Row, done: Repairs) -> None:
        """Put the file that was replaced aside. If that fails, reconciliation does it: it has no row any more."""
        if not row["path"].startswith("objects/"):
            return  # it lies in quarantine already
        try:
            volume.quarantine(row["path"])
            done.quarantined += 1
        except PacsError as error:
            log.info("there was nothing to put aside: %s", error, extra={"path": row["path"]})

    def _put_aside(self, volume: Volume, row: Row, own: str, done: Repairs) -> None:
        """What cannot be repaired goes to quarantine, if all of it was read and is proven wrong; else it stays."""
        if own == "bad" and row["path"].startswith("objects/"):
            new_path = volume.quarantine(row["path"])
            done.quarantined += 1
            log.error("a bad file without a source was put aside at %s", new_path, extra={"object": row["object_key"]})
        else:
            new_path = row["path"]
        with self.database.transaction() as connection:
            state: str = own if own in ("bad", "missing") else row["state"]
            rows.change_lost(connection, row["copy_key"], row["path"], new_path, state)


def _new_path(row: Row) -> str:
    if row["path"].startswith("objects/"):
        return fresh_path(row["path"])
    if row["tier"] == REPOSITORY_TIER:
        return fresh_path(repository_path(bytes(row["sha256"])))
    return object_path(
        row["tenant_id"], row["arrived_at"], study_key(row["study_instance_uid"]), bytes(row["sha256"])
    )  # fmt: skip


class _SourceFailed(PacsError):
    """A source could not be read to its end. Look at its disk."""
