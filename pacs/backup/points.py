"""Recovery points: named places in the database's log, each with all that it names in the repository.

    the log's place of now is named → the newest object's key is noted → … the log up to there is in the repository, and
    so is every object with a key up to that one → points/<name>.json is written: from now on it counts

So a point may come minutes after its moment, and never speaks of what is not there. Objects that were committed a
moment later may be there too: none does harm. One whose volume is away is waited for, and
`pacs check` tells of it; one of which there is no good copy anywhere is not. Points are signed; what was changed by
others is none.

    {"format": 1, "name": "…", "at": "…", "lsn": "0/3000028", "segment": "…", "label": "…", …, "signature": "…"}
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pacs import __version__, clock
from pacs.backup.log_shipping import ShippedLog, State
from pacs.backup.log_spool import LogSpool
from pacs.errors import DataTooNew, NotFound, PacsError, RestoreError
from pacs.index.database import Database, schema_version
from pacs.index.points import newest_object_key
from pacs.index.server import LogPosition, log_end, name_position
from pacs.storage.keyring import Keyring
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)

FORMAT = 1
FOLDER = "points"
#: All points are kept for so long, then one an hour, as long as there is a backup that they stand on.
KEEP_ALL = timedelta(days=2)
#: A point that is so far ahead of our clock was made by one that was wrong.
CLOCKS_DIFFER = timedelta(minutes=10)


@dataclass(frozen=True)
class Point:
    """A recovery point. at: its moment, in UTC."""

    name: str
    at: datetime
    #: Where in the log it is, and the segment that holds that place.
    lsn: str
    segment: str
    #: The backup of the database that it stands on (pgBackRest's label).
    label: str
    #: Every object with a key up to this one is in the repository, if a good copy of it was anywhere.
    newest_object_key: int
    appliance_id: str
    #: Which version wrote it, with which schema.
    version: str
    schema: int
    #: The snapshot of configuration, identity and journal that was the newest (restic's id); None if there was none.
    configuration: str | None = None

    @property
    def timeline(self) -> int:
        """The timeline of the log that it is on."""
        return int(self.segment[:8], 16)

    @property
    def position(self) -> tuple[int, int, int]:
        """Where in the log it is, as what can be compared: one that is behind another one is newer, whatever any clock
        said."""
        high, _, low = self.lsn.partition("/")
        return self.timeline, int(high, 16), int(low, 16)


def point_content(point: Point, keyring: Keyring) -> bytes:
    """What a point's file holds."""
    text = {"format": FORMAT, **asdict(point), "at": point.at.isoformat()}
    signature = Ed25519PrivateKey.from_private_bytes(keyring.signing_key).sign(_signed(text))
    return (json.dumps({**text, "signature": base64.b64encode(signature).decode()}, indent=1) + "\n").encode()


def parse_point(content: bytes, keyring: Keyring) -> Point:
    """The point that a file holds. Raise RestoreError if it is damaged or not ours, or DataTooNew."""
    try:
        found: dict[str, Any] = json.loads(content)
        signature = base64.b64decode(found.pop("signature"))
        key = Ed25519PrivateKey.from_private_bytes(keyring.signing_key).public_key()
        key.verify(signature, _signed(found))
        if found.pop("format") > FORMAT:
            raise DataTooNew("A recovery point is of a newer version. Boot the image that wrote it, or a newer one.")
        return Point(**{**found, "at": datetime.fromisoformat(found["at"])})
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature) as error:
        raise RestoreError("The file of a recovery point is damaged, or not this appliance's. Take another.") from error


def _signed(text: Mapping[str, Any]) -> bytes:
    return json.dumps(text, sort_keys=True, separators=(",", ":")).encode()


def points(volume: Volume, keyring: Keyring) -> list[Point]:
    """The recovery points of a repository that count, oldest first. What is damaged is left out, and logged."""
    found = []
    for name in _names(volume):
        try:
            found.append(parse_point(volume.read_small(f"{FOLDER}/{name}"), keyring))
        except (RestoreError, NotFound) as error:
            log.warning("%s at %s: %s", name, volume.location, error)
    return sorted(found, key=lambda point: point.position)


def newest_point(volume: Volume, keyring: Keyring) -> Point | None:
    """The newest that counts; None if there is none. By its name, so that not all are read; unless a clock was wrong:
    then by its place in the log."""
    for name in reversed(_names(volume)):
        try:
            found = parse_point(volume.read_small(f"{FOLDER}/{name}"), keyring)
        except (RestoreError, NotFound) as error:
            log.warning("%s at %s: %s", name, volume.location, error)
            continue
        is_yet_to_come = found.at > clock.now() + CLOCKS_DIFFER
        return points(volume, keyring)[-1] if is_yet_to_come else found
    return None


def point_named(volume: Volume, keyring: Keyring, name: str) -> Point:
    """A recovery point by its name. Raise NotFound, RestoreError or DataTooNew."""
    if not name.replace("_", "").isalnum():
        raise NotFound(f"{name} is no name of a recovery point. `pacs backup points` shows them.")
    try:
        return parse_point(volume.read_small(f"{FOLDER}/{name}.json"), keyring)
    except NotFound:
        raise NotFound(f"There is no recovery point {name}. `pacs backup points` shows them.") from None


def _names(volume: Volume) -> list[str]:
    return sorted(name for name in volume.names(FOLDER) if name.endswith(".json") and not name.startswith("."))


def expire(volume: Volume, keyring: Keyring, labels: Iterable[str]) -> int:
    """Remove the points whose backup is gone, and of the old ones all but one an hour; return how many."""
    known, removed, hours = set(labels), 0, set()
    until = clock.now() - KEEP_ALL
    for point in points(volume, keyring):
        hour = point.at.strftime("%Y%m%d%H")
        if point.label not in known or (point.at < until and hour in hours):
            volume.remove(f"{FOLDER}/{point.name}.json")
            removed += 1
        hours.add(hour)
    return removed


@dataclass
class Target:
    """A repository that gets points."""

    name: str
    volume: Volume
    #: Whether an object with a key up to this one, of which there is a good copy, is not in the repository yet.
    lacks_object: Callable[[int], bool]


class PointMaker:
    """Makes recovery points in every repository. For one thread."""

    def __init__(
        self, database: Database, spool: LogSpool, keyring: Keyring, appliance_id: str, every_s: float
    ) -> None:
        self.database, self.spool, self.keyring = database, spool, keyring
        self.appliance_id, self.every_s = appliance_id, every_s
        self._next_s = 0.0
        self._log_end = ""
        #: What waits until it counts: a repository's name → the point.
        self._waiting: dict[str, Point] = {}

    def run(self, targets: list[Target]) -> list[tuple[str, Point]]:
        """Name a new place if it is time, write the points that have come to count; return these."""
        states = {target.name: ShippedLog(self.spool, target.name).read() for target in targets}
        ready = [name for name, state in states.items() if state.label and not state.gap_since]
        for name in [name for name in self._waiting if name not in ready]:
            del self._waiting[name]
        if clock.monotonic_s() >= self._next_s and any(name not in self._waiting for name in ready):
            self._name_place(states, ready)
        written = []
        for target in targets:
            point = self._waiting.get(target.name)
            if point is None or not self._counts(point, states[target.name], target):
                continue
            del self._waiting[target.name]
            try:
                target.volume.replace_small(f"{FOLDER}/{point.name}.json", point_content(point, self.keyring))
                written.append((target.name, point))
                with ShippedLog(self.spool, target.name).changed() as state:
                    state.point_at, state.point_waits_since = point.at.isoformat(timespec="seconds"), None
            except PacsError as error:
                log.error("no recovery point in repository %s: %s", target.name, error)
        return written

    def _name_place(self, states: Mapping[str, State], ready: list[str]) -> None:
        """Name the log's place of now, unless nothing has happened since the last time."""
        self._next_s = clock.monotonic_s() + self.every_s
        if log_end(self.database) == self._log_end:
            return
        at = clock.now()
        name = f"{at:%Y%m%dT%H%M%S}_{at.microsecond // 1000:03d}Z"
        position: LogPosition = name_position(self.database.conninfo, name)
        newest = newest_object_key(self.database)
        with self.database.transaction() as connection:
            schema = schema_version(connection)
        self._log_end = log_end(self.database)
        for each in ready:
            state = states[each]
            if each not in self._waiting and state.label:
                with ShippedLog(self.spool, each).changed() as changing:
                    changing.point_waits_since = changing.point_waits_since or at.isoformat(timespec="seconds")
                self._waiting[each] = Point(
                    name, at, position.lsn, position.segment, state.label, newest, self.appliance_id, __version__,
                    schema, state.configuration,
                )  # fmt: skip

    @staticmethod
    def _counts(point: Point, state: State, target: Target) -> bool:
        if state.last_segment is None or state.last_segment < point.segment:
            return False
        return not target.lacks_object(point.newest_object_key)
