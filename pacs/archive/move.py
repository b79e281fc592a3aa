"""Moving settled studies between volumes: by the rules from tier to tier, and off a volume that is drained.

    copy → fsync → read back past caches, compare the digest → commit the new copy and take the old one out of service
         → ten minutes later remove its file

A kill at any moment leaves at least one verified copy, and at most one row for each copy and volume. Files without a
row are found by reconciliation. Of two workers that come to one study, one leaves it to the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from pacs import clock
from pacs.archive.batches import Item, Source, together
from pacs.archive.transfer import Stopped, Transfer
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError, VolumeFailed, VolumeMissing
from pacs.index import movement as rows
from pacs.index import tiers
from pacs.index.database import Connection, Database, Row
from pacs.index.movement import StudyLocks
from pacs.index.tiers import Wish
from pacs.model.schedule import Bucket, is_open
from pacs.model.tier_rules import Fill, Look, Rule, look
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)

#: How many studies are asked for at once.
STUDIES_MAX = 1000
#: How many copies that have left are looked up, and how many of them go in one commit.
_LEFT_MAX = 20_000
_REMOVED_AT_ONCE = 500
#: A study of which an object could not be moved is left alone for so long [s]: it must not hold up the others.
_FAILED_REST_S = 3600
_VOLUME_REST_S = 300
#: To look for studies takes at most one part in so many of the time.
_LOOK_SHARE = 20


class ChooseFor(Protocol):
    """Gives the volume that so many bytes go to."""

    def __call__(self, size_bytes: int, is_pinned: bool) -> Volume:
        """is_pinned: of studies that stay on their tier."""
        ...


@dataclass
class Pass:
    """What one look at the tiers did."""

    studies: int = 0
    objects: int = 0
    size_bytes: int = 0
    failed: int = 0
    removed: int = 0
    #: What ended a rule or a drain before its time.
    errors: list[str] = field(default_factory=list)

    @property
    def is_nothing(self) -> bool:
        """Whether it did nothing and nothing went wrong."""
        return not (self.studies or self.failed or self.removed or self.errors)


class Mover:
    """Moves studies between the volumes of one instance. For use by one thread; close it."""

    def __init__(
        self,
        database: Database,
        volumes: Volumes,
        settle_s: float,
        recall_keep_s: float = 0,
        stop: threading.Event | None = None,
    ) -> None:
        self.database, self.volumes, self.settle_s, self.recall_keep_s = database, volumes, settle_s, recall_keep_s
        self.transfer = Transfer(database, volumes, stop)
        self._locks = StudyLocks(database)
        self._rest_until_s: dict[int, float] = {}
        self._next_look_s: dict[str, float] = {}

    def close(self) -> None:
        """Let go of all."""
        self._locks.close()
        self.transfer.close()

    # --- by rule -----------------------------------------------------------------------------------------------------

    def follow(self, rules: Sequence[Rule], done: Pass) -> None:
        """Do what the rules say now. What goes wrong with one does not hold up the next."""
        for rule in rules:
            if clock.monotonic_s() < self._next_look_s.get(rule.name, 0):
                continue
            before = done.size_bytes
            try:
                seen = self.look(rule)
                if seen.is_due:
                    self.follow_rule(rule, seen, done)
            except PacsError as error:
                done.errors.append(f"rule {rule.name}: {error}")
                log.error("rule %s: %s", rule.name, error)
            if done.size_bytes > before:
                log.info("rule %s moved studies", rule.name, extra={"bytes": done.size_bytes - before})

    def look(self, rule: Rule) -> Look:
        """Whether a rule is due, and why or why not."""
        for tier in (rule.from_tier, rule.to_tier):
            if not self.volumes.tier(tier):
                return Look(False, 0, f"tier {tier} has no volume in service here")
        return look(rule, self.fill(rule.from_tier), clock.now().astimezone())

    def follow_rule(self, rule: Rule, seen: Look, done: Pass) -> None:
        """Move what a rule is about, as far as it says. Raise what ends it."""
        bucket = Bucket(None if seen.is_urgent else rule.bytes_per_s_max, clock.monotonic_s())
        moved_before, wish = done.size_bytes, self.wish(rule)

        def choose(size_bytes: int) -> Volume:
            return self.volumes.place(rule.to_tier, size_bytes)

        began_s = clock.monotonic_s()
        for page in self._pages(wish, done):
            for group in together(page, seen.size_bytes_max, lambda: done.size_bytes - moved_before):
                self._move(group, wish.sources, self._tier_ids(rule.to_tier), choose, done, rule.keep, bucket)
                if not seen.is_urgent and not is_open(rule.windows, clock.now().astimezone()):
                    return
            if seen.size_bytes_max is not None and done.size_bytes - moved_before >= seen.size_bytes_max:
                return
            began_s = clock.monotonic_s()
        # Looking at many studies takes its time: the longer it took, the later it is done again.
        now_s = clock.monotonic_s()
        self._next_look_s[rule.name] = now_s + _LOOK_SHARE * (now_s - began_s)

    def move_down(self, low_percent: float, done: Pass) -> None:
        """Move from tier 1 to tier 2 now, until tier 1 is at low_percent. Raise what ends it."""
        size_bytes = self.fill(1).bytes_above(low_percent)
        self.follow_rule(Rule("by hand", 1, 2), Look(True, size_bytes, "asked for"), done)

    def wish(self, rule: Rule) -> Wish:
        """Which studies a rule is about."""
        ae_titles = tiers.ae_titles_of(self.database, rule.devices) if rule.devices else []
        return Wish(self._tier_ids(rule.from_tier), self.settle_s, rule, ae_titles, self.recall_keep_s)

    def fill(self, tier: int) -> Fill:
        """How full the volumes in service of a tier are, taken together."""
        volumes = self.volumes.tier(tier)
        rooms = [volume.room() for volume in _of_own_file_system(volumes)]
        free = None if any(room.free_bytes is None for room in rooms) else sum(room.free_bytes or 0 for room in rooms)
        with self.database.transaction() as connection:
            leaving = tiers.bytes_leaving(connection, [volume.volume_id for volume in volumes])
        return Fill(sum(room.used_bytes for room in rooms), free, leaving)

    # --- off a volume ------------------------------------------------------------------------------------------------

    def empty(self, volume: Volume, choose: ChooseFor, done: Pass) -> None:
        """Move all settled studies off a volume; `choose` gives where to, for a size [bytes] and whether a study is
        pinned. Raise what ends it."""
        others = [each.volume_id for each in self.volumes.own() if each is not volume]
        for page in self._pages(Wish([volume.volume_id], self.settle_s, with_pinned=True), done):
            for is_pinned in (False, True):
                group = [study for study in page if study["is_pinned"] is is_pinned]
                for part in together(group, None):
                    choose_for = partial(choose, is_pinned=is_pinned)
                    self._move(part, [volume.volume_id], self._in_service(others), choose_for, done)

    def _in_service(self, volume_ids: Sequence[str]) -> list[str]:
        active = {row.volume_id for row in self.volumes.rows if row.state == "active"}
        return [each for each in volume_ids if each in active]

    # --- what both do ------------------------------------------------------------------------------------------------

    def _pages(self, wish: Wish, done: Pass) -> Iterator[list[Row]]:
        """The studies of a wish, a page at a time, until a page brings none that could be moved."""
        while True:
            now = clock.monotonic_s()
            self._rest_until_s = {key: until for key, until in self._rest_until_s.items() if until > now}
            with self.database.transaction() as connection:
                page = tiers.studies(connection, replace(wish, without=list(self._rest_until_s)), STUDIES_MAX)
            before = done.studies
            if page:
                yield page
            if len(page) < STUDIES_MAX or done.studies == before:
                return

    def _move(
        self,
        studies: Sequence[Row],
        sources: Sequence[str],
        targets: Sequence[str],
        choose: Callable[[int], Volume],
        done: Pass,
        keep: bool = False,
        bucket: Bucket | None = None,
    ) -> None:
        """Move what of some studies is on the sources. Only those that nobody else works on."""
        with self._locks.holding([study["study_key"] for study in studies]) as mine:
            if not mine:
                return
            with self.database.transaction() as connection:
                rows.revive_copies(connection, mine, targets)
                copies = rows.copies_to_move(connection, mine, sources, targets)
            study_of = {copy["object_key"]: copy["study_key"] for copy in copies}
            here = [volume.volume_id for volume in self.volumes.own()]

            def when_noted(connection: Connection, object_keys: Sequence[int], _size_bytes: int) -> None:
                if not keep:
                    rows.leave(connection, object_keys, sources, here)

            try:
                there = [copy for copy in copies if copy["is_there"]]
                if there and not keep:
                    with self.database.transaction() as connection:
                        rows.leave(connection, [copy["object_key"] for copy in there], sources, here)
                    done.objects += len(there)
                    done.size_bytes += sum(copy["size_bytes"] for copy in there)
                items = [_item(copy) for copy in copies if not copy["is_there"]]
                outcome = self.transfer.copy(items, choose, bucket, when_noted)
            except Stopped:
                return
            except VolumeFailed:  # of one of both: other studies may have other volumes
                self._rest(mine, _VOLUME_REST_S)
                raise
            done.objects += len(outcome.copied)
            done.size_bytes += outcome.size_bytes
            done.failed += len(outcome.failed)
            failed = {study_of[key] for key in outcome.failed}
            self._rest(failed, _FAILED_REST_S)
            done.studies += len(set(study_of.values()) - failed)

    def _rest(self, study_keys: Collection[int], seconds: float) -> None:
        self._rest_until_s |= dict.fromkeys(study_keys, clock.monotonic_s() + seconds)

    def remove_left(self, grace_s: float) -> int:
        """Remove the files of copies that left their volume longer than grace_s ago; return how many.

        That is longer than any request takes that was told their path.
        """
        return sum(self._remove_left_of(volume, grace_s) for volume in self.volumes.all())

    def _remove_left_of(self, volume: Volume, grace_s: float) -> int:
        removed = 0
        while True:
            with self.database.transaction() as connection:
                left = rows.left_copies(connection, volume.volume_id, grace_s, _LEFT_MAX)
            before = removed
            for at in range(0, len(left), _REMOVED_AT_ONCE):
                if self.transfer.stop.is_set():
                    return removed
                removed += self._remove(volume, left[at : at + _REMOVED_AT_ONCE])
            if len(left) < _LEFT_MAX or removed == before:  # some wait for the volume that has the other copy
                return removed

    def _remove(self, volume: Volume, left: Sequence[Row]) -> int:
        volume.require_present()
        here = [each.volume_id for each in self.volumes.own() if each is not volume]
        with self.database.transaction() as connection:
            paths = rows.forget_left(connection, left, here)
        # A kill here leaves files without a row: reconciliation finds them.
        for path in paths:
            volume.remove(path)
        return len(paths)

    def _tier_ids(self, tier: int) -> list[str]:
        return [volume.volume_id for volume in self.volumes.tier(tier)]


def _item(copy: Row) -> Item:
    source = Source(copy["copy_key"], copy["volume_id"], copy["path"])
    return Item(copy["object_key"], bytes(copy["sha256"]), copy["size_bytes"], (source,))


def _of_own_file_system(volumes: Sequence[Volume]) -> list[Volume]:
    """Of volumes that share a file system, as those of `pacs dev` do, one: their room is one room."""
    seen: dict[object, Volume] = {}
    for volume in volumes:
        try:
            key: object = Path(volume.location).stat().st_dev if volume.promise.kind == "local" else volume.volume_id
        except OSError:
            raise VolumeMissing(f"The volume at {volume.location} is gone. Is its disk attached and mounted?") from None
        seen.setdefault(key, volume)
    return list(seen.values())
