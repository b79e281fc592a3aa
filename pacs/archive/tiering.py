"""What a person does to the tiers: rules and pins, journalled; what would move, and how things stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from pacs import clock
from pacs.archive.drain import Progress
from pacs.archive.move import Mover
from pacs.archive.volumes import Volumes
from pacs.errors import NotFound, PacsError
from pacs.index import recalls, tiers
from pacs.index.database import Database, Row
from pacs.index.volumes import REPOSITORY_TIER
from pacs.model.tier_rules import Fill, Look, Rule, default_rule, in_force, require_sound
from pacs.settings import Settings
from pacs.storage.journal import Journal
from pacs.storage.kinds import Room

_PLANNED_MAX = 1000


def rules_in_force(database: Database, settings: Settings) -> list[Rule]:
    """The rules that are followed, in their order."""
    return in_force(tiers.rules(database), default_rule(settings.tier1_high_percent, settings.tier1_low_percent))


def require_sound_here(database: Database, settings: Settings, rule: Rule) -> None:
    """Raise UsageError, with what to do, for a rule that cannot be followed here, or that would do harm."""
    require_sound(rule, rules_in_force(database, settings), tiers.known(database))


def add_rule(database: Database, journal: Journal, settings: Settings, rule: Rule) -> None:
    """Add a rule, or write the one of its name anew. Raise UsageError, with what to do, if it is not sound."""
    require_sound_here(database, settings, rule)
    journal.append("tier rule add", **rule.values)
    with database.transaction() as connection:
        tiers.put_rule(connection, rule)


def remove_rule(database: Database, journal: Journal, name: str) -> None:
    """Forget a rule that was added. Raise NotFound if there is none."""
    with database.transaction() as connection:
        tiers.remove_rule(connection, name)  # what is not there is not journalled; committed behind the journal
        journal.append("tier rule remove", name=name)


def pin(database: Database, journal: Journal, study_instance_uid: str, reason: str = "") -> None:
    """Keep a study on its tier, whatever the rules say. Raise NotFound if there is none."""
    with database.transaction() as connection:
        tiers.pin(connection, tiers.study_key_of(connection, study_instance_uid), reason)
        journal.append("study pin", study_instance_uid=study_instance_uid, reason=reason)


def unpin(database: Database, journal: Journal, study_instance_uid: str) -> None:
    """Let a study move again. Raise NotFound if there is none, or it is not pinned."""
    with database.transaction() as connection:
        if not tiers.unpin(connection, tiers.study_key_of(connection, study_instance_uid)):
            raise NotFound(f"Study {study_instance_uid} is not pinned. `pacs study pins` shows those that are.")
        journal.append("study unpin", study_instance_uid=study_instance_uid)


def recall(database: Database, study_instance_uid: str) -> bool:
    """Have a study brought back from tier 3. False if all of it is at hand. Raise NotFound if there is none."""
    with database.transaction() as connection:
        far = recalls.far_of(connection, [tiers.study_key_of(connection, study_instance_uid)])
        recalls.request(connection, far, "person")
    return bool(far)


# --- what would move -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """A study that a rule would move now, and why."""

    study_instance_uid: str
    objects: int
    size_bytes: int
    last_use: datetime
    why: str


@dataclass(frozen=True)
class Planned:
    """What a rule would do now."""

    rule: Rule
    look: Look
    moves: tuple[Move, ...]
    #: Whether more studies than these would move.
    is_more: bool

    @property
    def size_bytes(self) -> int:
        """Of all that is listed."""
        return sum(move.size_bytes for move in self.moves)


@contextmanager
def looking(database: Database, volumes: Volumes, settings: Settings) -> Iterator[Mover]:
    """A mover that is only asked what it would do."""
    mover = Mover(database, volumes, settings.settle_s, settings.recall_keep_s)
    try:
        yield mover
    finally:
        mover.close()


def plan(
    database: Database, volumes: Volumes, settings: Settings, rule: Rule | None = None, studies_max: int = _PLANNED_MAX
) -> list[Planned]:
    """What the rules would move now; of `rule` alone, as if it were in force, if it is given. Nothing is changed."""
    rules = [rule] if rule is not None else rules_in_force(database, settings)
    with looking(database, volumes, settings) as mover:
        return [_planned(mover, each, studies_max) for each in rules]


def _planned(mover: Mover, rule: Rule, studies_max: int) -> Planned:
    seen = mover.look(rule)
    if not seen.is_due:
        return Planned(rule, seen, (), False)
    with mover.database.transaction() as connection:
        found = tiers.studies(connection, mover.wish(rule), studies_max + 1)
    moves: list[Move] = []
    size_bytes = 0
    for study in found[:studies_max]:
        if seen.size_bytes_max is not None and size_bytes >= seen.size_bytes_max:
            return Planned(rule, seen, tuple(moves), False)
        size_bytes += study["size_bytes"]
        moves.append(_move(rule, study))
    return Planned(rule, seen, tuple(moves), len(found) > studies_max)


def _move(rule: Rule, study: Row) -> Move:
    used, now = study["used_at"], clock.now()
    last = f"retrieved {(now - used).days} days ago" if used else "never retrieved"
    why = f"arrived {(now - study['last_arrival']).days} days ago, {last}"
    if rule.high_percent is not None:
        why += "; the longest unused goes first"
    return Move(study["study_instance_uid"], study["objects"], study["size_bytes"], study["last_use"], why)


# --- how things stand ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VolumeStatus:
    """A volume: how full it is, and what of it is the archive's."""

    name: str
    location: str
    state: str
    #: None if it is not here; `problem` then says why.
    room: Room | None
    problem: str
    holds: Progress


@dataclass(frozen=True)
class TierStatus:
    """A tier: its volumes, and how full they are together. None: none is here."""

    tier: int
    fill: Fill | None
    volumes: tuple[VolumeStatus, ...]


def status(database: Database, volumes: Volumes, settings: Settings) -> list[TierStatus]:
    """Each tier that has a volume."""
    found, held = [], tiers.on_volumes(database)
    with looking(database, volumes, settings) as mover:
        for tier in sorted({row.tier for row in volumes.rows if row.tier < REPOSITORY_TIER}):
            fill = mover.fill(tier) if volumes.tier(tier) else None
            ids = [row.volume_id for row in volumes.rows if row.tier == tier]
            of_tier = tuple(_volume_status(volumes, each, Progress.of(held.get(each))) for each in ids)
            found.append(TierStatus(tier, fill, of_tier))
    return found


def _volume_status(volumes: Volumes, volume_id: str, holds: Progress) -> VolumeStatus:
    row, room, problem = volumes.row(volume_id), None, ""
    try:
        room = volumes.get(volume_id).room()
    except PacsError as error:
        problem = str(error)
    return VolumeStatus(row.name, row.location, row.state, room, problem, holds)
