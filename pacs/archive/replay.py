"""The journal replayed: what each of its events does to a rebuilt index. docs/reference/journal.md lists them.

Events name things by UIDs, digests and names, never by the index's keys. Most say what stands in the end, whatever
came when: they are folded, and written when all objects are there. A few change what later arrivals meet: these are
applied in their place among the arrivals (`in_order`).

An event that is not here was written by a newer version: the rebuild refuses, and has touched nothing. Whoever adds an
event adds it here, and a test fails until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from pacs.errors import DataTooNew, NotFound
from pacs.index import devices, replay, tiers, tokens, volumes
from pacs.index.database import Connection
from pacs.index.devices import Device
from pacs.index.tokens import Token
from pacs.index.volumes import KnownVolume, State
from pacs.model.tier_rules import Rule

Line = dict[str, Any]


@dataclass
class Standing:
    """What stands at the journal's end, apart from arrivals."""

    #: By id; where one of the settings' volumes is, the settings say.
    volumes: dict[str, tuple[KnownVolume, datetime | None]] = field(default_factory=dict)
    devices: dict[str, tuple[Device, datetime]] = field(default_factory=dict)
    rules: dict[str, tuple[Rule, datetime]] = field(default_factory=dict)
    #: Study Instance UID → why it stays on its tier, and since when.
    pins: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    dismissed: dict[tuple[str, str, str, str], Line] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)

    def write(self, connection: Connection) -> list[str]:
        """Write it into the index; return what could not be done, in words."""
        devices.insert_devices(connection, list(self.devices.values()))
        for volume, _since in self.volumes.values():  # one of the settings' has its row already
            volumes.set_scrub_days(connection, volume.volume_id, volume.scrub_days)
        replay.put_dismissed(connection, list(self.dismissed.values()))
        for token in self.tokens.values():
            tokens.put_token(connection, token)
        for rule, since in self.rules.values():
            tiers.put_rule(connection, rule, since)
        problems = [_pin(connection, uid, reason, since) for uid, (reason, since) in self.pins.items()]
        return [problem for problem in problems if problem]


def _pin(connection: Connection, study_instance_uid: str, reason: str, since: datetime) -> str:
    try:
        tiers.pin(connection, tiers.study_key_of(connection, study_instance_uid), reason, since)
    except NotFound:
        return f"Study {study_instance_uid} was to stay on its tier, and is on no volume."
    return ""


@dataclass(frozen=True)
class Event:
    """What an event does: one of the two. `in_order` returns why it could not be done, or nothing."""

    fold: Callable[[Standing, Line], None] | None = None
    in_order: Callable[[Connection, Line], str] | None = None


def _add_volume(standing: Standing, line: Line) -> None:
    named = {name: line[name] for name in ("volume_id", "name", "tier", "kind", "location", "options")}
    standing.volumes[line["volume_id"]] = (KnownVolume(**named), line["at"])


def _restore(standing: Standing, line: Line) -> None:
    """Of the volumes of the appliance that was backed up, those that were gone."""
    for volume_id in line.get("gone", tuple(standing.volumes)):
        standing.volumes.pop(volume_id, None)


def _known_volume(standing: Standing, line: Line) -> tuple[KnownVolume, datetime | None]:
    known, since = standing.volumes.get(line["volume_id"], (None, None))
    if known is None:  # the settings', which are called by their tier
        known = KnownVolume(line["volume_id"], line["name"], int(line["name"].removeprefix("tier")), "")
    return known, since


def _change_volume(state: State) -> Callable[[Standing, Line], None]:
    def change(standing: Standing, line: Line) -> None:
        known, since = _known_volume(standing, line)
        standing.volumes[line["volume_id"]] = (replace(known, state=state), since)

    return change


def _set_volume(standing: Standing, line: Line) -> None:
    unknown = line.keys() - {"at", "what", "volume_id", "name", "scrub_days"}
    if unknown:
        raise DataTooNew(
            f"The journal tells of volumes what this version does not know ({', '.join(unknown)}). "
            "Nothing was touched. Boot the image that wrote it, or a newer one."
        )
    known, since = _known_volume(standing, line)
    standing.volumes[line["volume_id"]] = (replace(known, scrub_days=line["scrub_days"]), since)


def _put_device(standing: Standing, line: Line) -> None:
    known = {each.name for each in fields(Device)}
    values: Line = {name: value for name, value in line.items() if name not in ("at", "what")}
    if not values.keys() <= known:
        raise DataTooNew(
            f"The journal tells of devices what this version does not know ({', '.join(values.keys() - known)}). "
            "Nothing was touched. Boot the image that wrote it, or a newer one."
        )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    device = Device(**values)
    before = standing.devices.get(device.name)
    standing.devices[device.name] = (device, before[1] if before else line["at"])


def _remove_device(standing: Standing, line: Line) -> None:
    standing.devices.pop(line["name"], None)


def _put_rule(standing: Standing, line: Line) -> None:
    values = {name: value for name, value in line.items() if name not in ("at", "what")}
    unknown = values.keys() - {each.name for each in fields(Rule)}
    if unknown:
        raise DataTooNew(
            f"The journal tells of rules of tiers what this version does not know ({', '.join(unknown)}). "
            "Nothing was touched. Boot the image that wrote it, or a newer one."
        )
    before = standing.rules.get(line["name"])
    standing.rules[line["name"]] = (Rule.of(values), before[1] if before else line["at"])


def _remove_rule(standing: Standing, line: Line) -> None:
    standing.rules.pop(line["name"], None)


def _pin_study(standing: Standing, line: Line) -> None:
    before = standing.pins.get(line["study_instance_uid"])
    standing.pins[line["study_instance_uid"]] = (line["reason"], before[1] if before else line["at"])


def _unpin_study(standing: Standing, line: Line) -> None:
    standing.pins.pop(line["study_instance_uid"], None)


def _add_token(standing: Standing, line: Line) -> None:
    values = {name: value for name, value in line.items() if name not in ("at", "what")}
    unknown = values.keys() - {each.name for each in fields(Token)}
    if unknown:
        raise DataTooNew(
            f"The journal tells of tokens what this version does not know ({', '.join(unknown)}). "
            "Nothing was touched. Boot the image that wrote it, or a newer one."
        )
    standing.tokens[line["name"]] = Token.of(values)


def _remove_token(standing: Standing, line: Line) -> None:
    standing.tokens.pop(line["name"], None)


def _dismiss_refusal(standing: Standing, line: Line) -> None:
    standing.dismissed[line["calling_ae"], line["address"], line["kind"], line["detail"]] = line


def _resolve_conflict(connection: Connection, line: Line) -> str:
    conflict = replay.find_conflict(connection, line)
    if conflict is None:
        return f"A decision about a conflict ({line['kind']}) found none: its objects are not on the volumes."
    if conflict["resolved_at"] is not None:
        return ""  # it was interrupted and made again
    new_uid = line.get("new_sop_instance_uid")
    if new_uid and not replay.is_stored(connection, new_uid):
        return ""  # interrupted before the object was stored: it is still to be decided
    replay.decide(connection, conflict, line["resolution"], line["at"])
    return ""


#: Every event that the journal can have. Corrections, merges, labels, holds, retention and deletions come with G:
#: those that say what a study or patient is now are in_order, deletions too.
EVENTS: dict[str, Event] = {
    "restore": Event(fold=_restore),
    "volume add": Event(fold=_add_volume),
    "volume drain": Event(fold=_change_volume("draining")),
    "volume undrain": Event(fold=_change_volume("active")),
    "volume retire": Event(fold=_change_volume("retired")),
    "volume set": Event(fold=_set_volume),
    "device add": Event(fold=_put_device),
    "device change": Event(fold=_put_device),
    "device remove": Event(fold=_remove_device),
    "tier rule add": Event(fold=_put_rule),
    "tier rule remove": Event(fold=_remove_rule),
    "study pin": Event(fold=_pin_study),
    "study unpin": Event(fold=_unpin_study),
    "refusal dismiss": Event(fold=_dismiss_refusal),
    "token add": Event(fold=_add_token),
    "token remove": Event(fold=_remove_token),
    "conflict resolve": Event(in_order=_resolve_conflict),
}


@dataclass(frozen=True)
class Journalled:
    """A journal that was read: what stands in the end, and what is to be applied among the arrivals, in order."""

    standing: Standing
    in_order: tuple[Line, ...]

    def apply(self, connection: Connection, number: int) -> str:
        """Apply one of in_order; return why it could not be done, or nothing."""
        line = self.in_order[number]
        handler = EVENTS[line["what"]].in_order
        assert handler is not None
        return handler(connection, line)


def read(lines: Iterable[Line]) -> Journalled:
    """Read a journal. Raise DataTooNew, before anything is touched, if this version does not know all of it."""
    standing, in_order, newest = Standing(), list[Line](), None
    for line in lines:
        event = EVENTS.get(line.get("what", ""))
        if event is None:
            raise DataTooNew(
                f"The journal has an event {line.get('what')!r}, which this version does not know. Nothing was "
                "touched. Boot the image that wrote it, or a newer one."
            )
        at = datetime.fromisoformat(line["at"])
        newest = max(newest, at) if newest else at  # a clock that was set back does not change their order
        placed = {**line, "at": newest}
        if event.fold is not None:
            event.fold(standing, placed)
        else:
            in_order.append(placed)
    return Journalled(standing, tuple(in_order))
