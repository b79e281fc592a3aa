"""Recall: studies of tier 3 that are asked for come back to tier 1 or 2 by themselves, with their priors.

Whoever retrieves such a study is given it from tier 3 at once, and need not wait. What was asked for is a row, one a
study however many ask, and outlives a kill; the worker copies the rest of the study behind the retrieve, as it copies
everything: verified on the far side, then committed. The copy on tier 3 stays, so that a study which is not used any
more moves down again without being copied.

After a restore all that is in the repository only comes back the same way (Behind): newest and most lately used first.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pacs.archive.batches import Item, Source
from pacs.archive.transfer import Outcome, Stopped, Transfer
from pacs.archive.volumes import Volumes
from pacs.errors import DigestMismatch, NotFound, PacsError, VolumeError, VolumeFull
from pacs.index import movement
from pacs.index import recalls as rows
from pacs.index.database import Connection, Database, Row
from pacs.index.movement import StudyLocks
from pacs.index.recalls import FAR_TIER
from pacs.index.retrieve import withdraw_copy
from pacs.index.volumes import REPOSITORY_TIER
from pacs.model.record import study_key
from pacs.storage.kinds import Volume
from pacs.storage.names import object_path

log = logging.getLogger(__name__)

#: A recall that fails is tried again after 10 s, 20 s, ... at most so long [s], and so often.
_RETRY_S, _RETRY_S_MAX = 10, 600
ATTEMPTS_MAX = 10
_AT_ONCE = 32


class Recaller:
    """Brings studies back that were asked for. For use by one thread; close it."""

    def __init__(
        self, database: Database, volumes: Volumes, tier: int = 2, stop: threading.Event | None = None
    ) -> None:
        """tier is where they come to, 1 or 2, as long as there is room; else they come to the other."""
        self.database, self.volumes, self.tier = database, volumes, tier
        self.transfer = Transfer(database, volumes, stop)
        self._locks = StudyLocks(database)

    def close(self) -> None:
        """Let go of all."""
        self._locks.close()
        self.transfer.close()

    def run(self) -> int:
        """Do the recalls that are due; return how many studies are back."""
        done = 0
        for recall in self._due():
            if self.transfer.stop.is_set():
                break
            with self._locks.holding([recall["study_key"]]) as mine:
                if mine:  # else somebody is at work on it, and it is looked at again
                    done += self._recall(recall)
        return done

    def _due(self) -> list[Row]:
        return rows.due(self.database, _AT_ONCE)

    def _recall(self, recall: Row) -> bool:
        with self.database.transaction() as connection:
            if not rows.is_open(connection, recall["recall_key"]):
                return False
            movement.revive_copies(connection, [recall["study_key"]], self._near())
            found = rows.objects_to_recall(connection, recall["study_key"], self._near())
        try:
            outcome = self._copy(recall["recall_key"], found)
        except Stopped:
            return False
        except PacsError as error:
            self._try_later(recall, error)
            return False
        if outcome.failed:
            reason, number = Counter(str(error) for error in outcome.failed.values()).most_common(1)[0]
            self._try_later(
                recall, PacsError(f"{len(outcome.failed)} objects did not come; {number} of them: {reason}")
            )
            return False
        with self.database.transaction() as connection:
            rows.finish(connection, recall["recall_key"])
        log.info("a study was recalled", extra={"objects": len(outcome.copied), "bytes": outcome.size_bytes})
        return True

    def _copy(self, recall_key: int, found: Sequence[Row]) -> Outcome:
        def when_noted(connection: Connection, object_keys: Sequence[int], size_bytes: int) -> None:
            rows.note_progress(connection, recall_key, len(object_keys), size_bytes)

        return self.transfer.copy(_items(found), self._choose, when_noted=when_noted)

    def _near(self) -> list[str]:
        return [
            row.volume_id for row in self.volumes.rows if row.tier < FAR_TIER and row.volume_id in self.volumes.by_id
        ]

    def _choose(self, size_bytes: int) -> Volume:
        return self._first_of((self.tier, 3 - self.tier), size_bytes)

    def _first_of(self, tiers: Sequence[int], size_bytes: int) -> Volume:
        failure: PacsError | None = None
        for tier in tiers:
            try:
                return self.volumes.place(tier, size_bytes)
            except (VolumeFull, VolumeError) as error:
                failure = failure if isinstance(failure, VolumeFull) else error
        assert failure is not None
        raise failure

    def _may_give_up(self) -> bool:
        return True

    def _try_later(self, recall: Row, error: PacsError) -> None:
        attempts = recall["attempts"] + 1
        give_up = attempts >= ATTEMPTS_MAX and self._may_give_up()
        log.warning("a study could not be recalled%s: %s", "" if not give_up else ", and is given up", error)
        with self.database.transaction() as connection:
            after_s = min(_RETRY_S << min(recall["attempts"], 10), _RETRY_S_MAX)
            rows.try_later(connection, recall["recall_key"], str(error), after_s, give_up)


class Behind(Recaller):
    """Brings back what a restore left in the repository only: to tier 1 up to its low mark, then to tier 2, then to 3.

    Nothing is given up: without room, or without the repository, it is served from there and tried again.
    """

    def __init__(
        self, database: Database, volumes: Volumes, low_percent: float, stop: threading.Event | None = None
    ) -> None:
        """low_percent: how full tier 1 may become of it, so that there is room for what arrives."""
        super().__init__(database, volumes, 1, stop)
        self.low_percent = low_percent

    def _due(self) -> list[Row]:
        return rows.due_behind(self.database, _AT_ONCE)

    def _near(self) -> list[str]:
        here = self.volumes.by_id
        return [row.volume_id for row in self.volumes.rows if row.tier < REPOSITORY_TIER and row.volume_id in here]

    def _choose(self, size_bytes: int) -> Volume:
        rooms = [volume.room() for volume in self.volumes.tier(1)]
        used = sum(room.used_bytes for room in rooms)
        free = sum(room.free_bytes or 0 for room in rooms)
        is_below = all(room.free_bytes is not None for room in rooms) and used < (used + free) * self.low_percent / 100
        return self._first_of((1, 2, 3) if is_below else (2, 3), size_bytes)

    def _may_give_up(self) -> bool:
        return False

    def _copy(self, recall_key: int, found: Sequence[Row]) -> Outcome:
        """The same; a copy that the repository has not got, or not as it was, is taken out of service: no try helps."""
        outcome = super()._copy(recall_key, found)
        for row in found:
            if isinstance(outcome.failed.get(row["object_key"]), NotFound | DigestMismatch):
                state = self._state_of(row)
                if state is not None:
                    with self.database.transaction() as connection:
                        withdraw_copy(connection, row["copy_key"], row["path"], state)
                    log.error("a copy in a repository is %s", state, extra={"object": row["object_key"]})
        return outcome

    def _state_of(self, row: Row) -> str | None:
        """How a copy is lost; None if it is not, or nobody can say now: then it was its target, or the way there."""
        try:
            volume = self.volumes.get(row["volume_id"])
            return None if volume.digest_on_disk(row["path"]) == bytes(row["sha256"]) else "bad"
        except NotFound:
            return "missing"
        except DigestMismatch:  # what is sealed, and was changed
            return "bad"
        except PacsError:
            return None


def _items(found: Sequence[Row]) -> list[Item]:
    """A row a copy, those of an object together, becomes an object with its copies."""
    items: list[Item] = []
    for row in found:
        source = Source(row["copy_key"], row["volume_id"], row["path"])
        if items and items[-1].object_key == row["object_key"]:
            last = items.pop()
            items.append(replace(last, sources=(*last.sources, source)))
        else:
            sha256 = bytes(row["sha256"])
            # That of a source does not do: a repository names objects in its own way.
            like = object_path(row["tenant_id"], row["arrived_at"], study_key(row["study_instance_uid"]), sha256)
            items.append(Item(row["object_key"], sha256, row["size_bytes"], (source,), like=like))
    return items
