"""What is to be told now: of each check that is not well once in a while, and once when it is well again. Pure.

A matter is told of when it was seen twice, so that a restart or a short outage says nothing (a disk of a RAID that
fails, and a UPS without power, at once); that it is well again is told when it has been so for an hour, so that what
goes up and down does not fill a mailbox. What goes up and down too fast to be seen twice is told of too, as what it
is. A check that could not be made, as the database is gone, stays what it was: the check `database` is told of, and not
all that hang on it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

Severity = Literal["ok", "warning", "unknown", "critical"]
#: How often the same matter is told of, unless a setting says otherwise.
AGAIN = timedelta(hours=24)
#: So long something has been wrong, or well, before it is told of.
WRONG_FOR, WELL_FOR = timedelta(minutes=4), timedelta(hours=1)
#: What has become wrong so often within so long goes up and down.
FLAPS, FLAPS_WITHIN = 3, timedelta(hours=3)
#: Checks of which a warning is told of too: a person must do something about it, or soon must.
WARNINGS = frozenset(
    {
        "conflicts", "lineage", "certificates", "smart", "raid", "ups", "time", "silence", "memory", "alerts",
        "audit", "database", "updates",
    }
)  # fmt: skip
#: Checks whose word is told at once when it is critical: a minute counts, and no restart looks like it.
AT_ONCE = frozenset({"raid", "ups"})
#: The checks that say why others could not be made.
_GROUNDS = ("database", "instance")
#: A UID, in which a device may have put a patient's number: five components and more, as no address has.
_UID = re.compile(r"\b\d+(?:\.\d+){4,}\b")


@dataclass(frozen=True)
class Told:
    """What is known of a matter between two looks. None: not so."""

    severity: Severity = "ok"
    #: Since when it has been as it is.
    since: datetime | None = None
    #: When it was last told that it is wrong; None: the last that was told is that it is well.
    told_at: datetime | None = None
    told: Severity = "ok"
    #: When it became wrong of late, the newest last.
    fell_at: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Matter:
    """A thing to tell: of which check, what, and what to do."""

    name: str
    severity: Severity
    message: str
    hint: str = ""
    #: Whether it is well again.
    is_over: bool = False


def to_tell(
    seen: Collection[Matter],
    known: Mapping[str, Told],
    now: datetime,
    again: timedelta = AGAIN,
    held: Mapping[str, datetime] | None = None,
) -> tuple[list[Matter], dict[str, Told]]:
    """What is to be told of what the checks say now, and what is to be known at the next look.

    held: name of a check → until when nothing is told of it; what it has become is told then.
    """
    found: list[Matter] = []
    after: dict[str, Told] = {}
    is_blind = any(each.name in _GROUNDS and each.severity == "critical" for each in seen)
    for matter in seen:
        before = known.get(matter.name, Told())
        if matter.severity == "unknown" and is_blind:
            after[matter.name] = before
            continue
        told = _seen(before, matter.severity if _matters(matter) else "ok", now)
        if (held or {}).get(matter.name, now) <= now:
            told = _tell(matter, told, now, again, found)
        after[matter.name] = told
    # What was looked at the last time and is not now (where no instance could be opened, say) is as it was.
    return found, {**{name: told for name, told in known.items() if name not in after}, **after}


def _seen(before: Told, wrong: Severity, now: datetime) -> Told:
    since = before.since if before.severity == wrong and before.since is not None else now
    fell_at = tuple(each for each in before.fell_at if timedelta(0) <= now - each < FLAPS_WITHIN)
    if wrong != "ok" and before.severity == "ok":
        fell_at = (*fell_at, now)
    return replace(before, severity=wrong, since=since, fell_at=fell_at)


def _tell(matter: Matter, told: Told, now: datetime, again: timedelta, found: list[Matter]) -> Told:
    message = without_uids(matter.message)
    if told.severity != "ok" and _is_to_be_told(matter, told, now, again):
        if len(told.fell_at) >= FLAPS:
            message = (
                f"{message} (it goes up and down: {len(told.fell_at)} times in {FLAPS_WITHIN.seconds // 3600} hours)"
            )
        found.append(replace(matter, message=message))
        return replace(told, told_at=now, told=told.severity)
    assert told.since is not None
    if told.severity == "ok" and told.told_at is not None and now - told.since >= WELL_FOR:
        found.append(replace(matter, message=message, is_over=True))
        return replace(told, told_at=None, told="ok")
    return told


def _matters(matter: Matter) -> bool:
    if matter.severity in ("critical", "unknown"):
        return True
    return matter.severity == "warning" and matter.name in WARNINGS


def _is_to_be_told(matter: Matter, told: Told, now: datetime, again: timedelta) -> bool:
    assert told.since is not None
    is_urgent = matter.name in AT_ONCE and matter.severity == "critical"
    is_lasting = is_urgent or now - told.since >= WRONG_FOR or now < told.since
    if not is_lasting and len(told.fell_at) < FLAPS:
        return False
    if told.told_at is None or told.told_at > now:  # a clock that was put back must not keep it quiet
        return True
    return now - told.told_at >= again or (told.severity, told.told) == ("critical", "warning")


def without_uids(text: str) -> str:
    """A text without the UIDs of studies and objects: whoever reads it on the way has no business with them."""
    return _UID.sub("(UID)", text)
