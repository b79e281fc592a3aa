"""Which settled studies move between volumes: by the rules from tier to tier, and off a volume that is drained.

rule or drain → studies, a page at a time → groups → moved here (move_group.py), or where they are many small
    objects of disks in several processes (move_processes.py) → the files that were left are removed
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

from pacs import clock
from pacs.archive.batches import together
from pacs.archive.move_group import Group, GroupMover, Pass
from pacs.archive.move_processes import MovingProcesses
from pacs.archive.transfer import Stopping
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError, VolumeMissing
from pacs.index import movement as rows
from pacs.index import tiers
from pacs.index.database import Database, Row
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
#: With more objects on a page than this, starting processes takes less time than they save.
PROCESSES_FROM_OBJECTS = 10_000
#: ... if they are small [bytes]: of large ones the disk has the work, and not we.
_SMALL_BYTES = 1 << 20
#: To look for studies takes at most one part in so many of the time.
_LOOK_SHARE = 20


class ChooseFor(Protocol):
    """Gives the volume that so many bytes go to."""

    def __call__(self, size_bytes: int, is_pinned: bool) -> Volume:
        """is_pinned: of studies that stay on their tier."""
        ...


class Moving(Protocol):
    """Whoever moves groups of studies by a rule."""

    @property
    def given_bytes(self) -> int:
        """What was moved, and what is under way."""
        ...

    def move(self, group: Group) -> None:
        """Move a group, now or soon. Raise what ended it, or one before it."""
        ...

    def wait(self) -> None:
        """Until nothing is under way. Raise what ended it."""
        ...


class Mover:
    """Moves studies between the volumes of one instance. For use by one thread; close it."""

    def __init__(
        self,
        database: Database,
        volumes: Volumes,
        settle_s: float,
        recall_keep_s: float = 0,
        stop: Stopping | None = None,
    ) -> None:
        self.database, self.volumes, self.settle_s, self.recall_keep_s = database, volumes, settle_s, recall_keep_s
        self._groups = GroupMover(database, volumes, stop)
        self._stop = self._groups.transfer.stop
        self._next_look_s: dict[str, float] = {}

    def close(self) -> None:
        """Let go of all."""
        self._groups.close()

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
        began_s, wish = clock.monotonic_s(), self.wish(rule)
        pages = self._pages(wish, done)
        first = next(pages, [])
        with self._moving(rule, seen, first, done) as moving:
            for page in chain([first], pages) if first else ():
                if not self._move_page(page, wish, seen, moving):
                    return
                began_s = clock.monotonic_s()
        # Looking at many studies takes its time: the longer it took, the later it is done again.
        now_s = clock.monotonic_s()
        self._next_look_s[rule.name] = now_s + _LOOK_SHARE * (now_s - began_s)

    def _move_page(self, page: Sequence[Row], wish: Wish, seen: Look, moving: Moving) -> bool:
        """Move a page of studies. False if that was all, for now."""
        rule, most = wish.rule, seen.size_bytes_max
        assert rule is not None
        for studies in together(page, most, lambda: moving.given_bytes):
            moving.move(Group(studies, wish.sources, self._tier_ids(rule.to_tier), rule.keep))
            if not seen.is_urgent and not is_open(rule.windows, clock.now().astimezone()):
                moving.wait()
                return False
        moving.wait()
        return most is None or moving.given_bytes < most

    @contextmanager
    def _moving(self, rule: Rule, seen: Look, first: Sequence[Row], done: Pass) -> Iterator[Moving]:
        """Whoever moves groups: processes, where many small objects lie on disks and no bound is set; or we."""
        objects, size_bytes = (sum(study[name] for study in first) for name in ("objects", "size_bytes"))
        disks = [*self.volumes.tier(rule.from_tier), *self.volumes.tier(rule.to_tier)]
        bytes_per_s_max = None if seen.is_urgent else rule.bytes_per_s_max
        if (
            objects > PROCESSES_FROM_OBJECTS
            and size_bytes < objects * _SMALL_BYTES
            and bytes_per_s_max is None
            and all(volume.promise.kind == "local" for volume in disks)
        ):
            processes = MovingProcesses(self._groups, rule.to_tier, done)
            try:
                yield processes
            finally:
                processes.close()
        else:
            yield _Here(self._groups, rule.to_tier, done, Bucket(bytes_per_s_max, clock.monotonic_s()))

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
                studies = [study for study in page if study["is_pinned"] is is_pinned]
                for part in together(studies, None):
                    choose_for = partial(choose, is_pinned=is_pinned)
                    group = Group(part, [volume.volume_id], self._in_service(others))
                    self._groups.move(group, choose_for, done)

    def _in_service(self, volume_ids: Sequence[str]) -> list[str]:
        active = {row.volume_id for row in self.volumes.rows if row.state == "active"}
        return [each for each in volume_ids if each in active]

    # --- what both do ------------------------------------------------------------------------------------------------

    def _pages(self, wish: Wish, done: Pass) -> Iterator[list[Row]]:
        """The studies of a wish, a page at a time, until a page brings none that could be moved."""
        while True:
            with self.database.transaction() as connection:
                page = tiers.studies(connection, replace(wish, without=self._groups.resting()), STUDIES_MAX)
            before = done.studies
            if page:
                yield page
            if len(page) < STUDIES_MAX or done.studies == before:
                return

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
                if self._stop.is_set():
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


class _Here:
    """Moves groups in this process, one after the other."""

    def __init__(self, mover: GroupMover, to_tier: int, done: Pass, bucket: Bucket) -> None:
        self._mover, self._to_tier, self._done, self._bucket = mover, to_tier, done, bucket
        self._before_bytes = done.size_bytes

    @property
    def given_bytes(self) -> int:
        return self._done.size_bytes - self._before_bytes

    def move(self, group: Group) -> None:
        volumes = self._mover.volumes
        self._mover.move(group, lambda size_bytes: volumes.place(self._to_tier, size_bytes), self._done, self._bucket)

    def wait(self) -> None:
        pass


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
