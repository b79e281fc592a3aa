"""The forecast of an instance: what its disks have, how it grows, by which rules it moves; see model/forecast.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from pacs import clock
from pacs.archive.room import free_bytes, reserve_bytes, size_bytes
from pacs.archive.tiering import rules_in_force
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError
from pacs.index import growth as rows
from pacs.index.database import Database
from pacs.index.volumes import REPOSITORY_TIER
from pacs.model.forecast import Arrived, Disk, Growth, Move, Outlook, look_ahead, measure_growth
from pacs.model.plan import INDEX_BYTES
from pacs.model.tier_rules import Rule
from pacs.settings import Settings
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import Room, Volume

#: From how many objects on what the index takes of each is measured, and no longer taken from the planner.
_MEASURED_OBJECTS_MIN = 100_000
_DAYS_KEPT = 2 * 365
_STATE = 0  # among the tiers


@dataclass(frozen=True)
class Forecast:
    """growth is None while there is nothing to go by; then nothing is said of when a disk is full."""

    growth: Growth | None
    outlooks: list[Outlook]
    index_bytes_an_object: float


def forecast(settings: Settings, database: Database, volumes: Volumes) -> Forecast:
    """When each disk is full. Costs a few short queries, and a look at each file system."""
    today = clock.now().date()
    since = today - timedelta(days=_DAYS_KEPT)
    arrived = {row["day"]: Arrived(row["objects"], row["size_bytes"]) for row in rows.arrivals(database, since)}
    growth, an_object = measure_growth(arrived, today), _index_bytes_an_object(database)
    disks = [group.disk() for group in _groups(settings, database, volumes)]
    if growth is None:
        return Forecast(None, [Outlook(disk, None) for disk in disks], an_object)
    moves = _moves(rules_in_force(database, settings))
    return Forecast(growth, look_ahead(disks, moves, growth, an_object), an_object)


def _moves(rules: Sequence[Rule]) -> list[Move]:
    """The rules that are about all studies. Those about some kinds only move less than is reckoned without them."""
    return [
        Move(
            rule.from_tier, rule.to_tier, rule.high_percent, rule.low_percent,
            max((days for days in (rule.age_days, rule.unused_days) if days is not None), default=None), rule.keep,
        )
        for rule in rules
        if not (rule.modalities or rule.devices or rule.tenants)
    ]  # fmt: skip


def _index_bytes_an_object(database: Database) -> float:
    objects = rows.objects_counted(database)
    if objects < _MEASURED_OBJECTS_MIN:
        return INDEX_BYTES
    return rows.database_size_bytes(database) / objects


@dataclass
class _Group:
    """File systems that the same tiers lie on; by device number, or by volume where there is none."""

    tiers: set[int]
    rooms: dict[object, Room] = field(default_factory=dict)
    kept_bytes: int = 0

    def disk(self) -> Disk:
        """As the forecast has it."""
        free = [room.free_bytes for room in self.rooms.values()]
        names = [str(tier) for tier in sorted(self.tiers - {_STATE})]
        words = ["state"] * (_STATE in self.tiers) + [f"tier {name}" for name in names]
        return Disk(
            name=" and ".join(words),
            tiers=tuple(sorted(self.tiers - {_STATE})),
            used_bytes=sum(room.used_bytes for room in self.rooms.values()),
            free_bytes=None if None in free else sum(each or 0 for each in free),
            kept_bytes=self.kept_bytes,
            holds_state=_STATE in self.tiers,
        )


def _groups(settings: Settings, database: Database, volumes: Volumes) -> list[_Group]:
    """The file systems of the state and of each tier's volumes that are in service and here."""
    state = settings.data.stat().st_dev
    reserve = reserve_bytes(settings, database)
    free, size = free_bytes(settings.data), size_bytes(settings.data)
    groups = [_Group({_STATE}, {state: Room(size, size - free, max(0, free - reserve))}, reserve)]
    for tier in sorted({row.tier for row in volumes.rows if row.tier < REPOSITORY_TIER}):
        here = _rooms(volumes.tier(tier))
        shared = [group for group in groups if group.rooms.keys() & here.keys()]
        merged = _Group({tier}.union(*(group.tiers for group in shared)), here)
        for group in shared:
            merged.rooms |= group.rooms
            merged.kept_bytes += group.kept_bytes
        if here:
            groups = [group for group in groups if group not in shared] + [merged]
    return groups


def _rooms(of_tier: list[Volume]) -> dict[object, Room]:
    found: dict[object, Room] = {}
    for volume in of_tier:
        try:
            key = volume.root.stat().st_dev if isinstance(volume, LocalVolume) else volume.volume_id
            found[key] = volume.room()
        except (OSError, PacsError):  # gone just now; its check says so
            continue
    return found
