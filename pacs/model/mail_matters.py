"""What is to be told by mail now: of each check that is not well once a day, and once when it is well again. Pure.

A matter is told of when it was seen twice, so that a restart or a short outage says nothing; that it is well again is
told when it has been so for an hour, so that what goes up and down does not fill a mailbox.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

Severity = Literal["ok", "warning", "critical"]
#: How often the same matter is told of.
AGAIN = timedelta(hours=24)
#: So long something has been wrong, or well, before it is told of.
WRONG_FOR, WELL_FOR = timedelta(minutes=4), timedelta(hours=1)
#: Checks of which a warning is told of too: a person must do something about it.
WARNINGS = frozenset({"conflicts", "lineage"})
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
    seen: Collection[Matter], known: Mapping[str, Told], now: datetime
) -> tuple[list[Matter], dict[str, Told]]:  # fmt: skip
    """What is to be told of what the checks say now, and what is to be known at the next look."""
    found: list[Matter] = []
    after: dict[str, Told] = {}
    for matter in seen:
        before = known.get(matter.name, Told())
        wrong = matter.severity if _matters(matter) else "ok"
        since = before.since if before.severity == wrong and before.since is not None else now
        told = replace(before, severity=wrong, since=since)
        if wrong != "ok" and _is_to_be_told(told, now):
            found.append(replace(matter, message=without_uids(matter.message)))
            told = replace(told, told_at=now, told=wrong)
        elif wrong == "ok" and told.told_at is not None and now - since >= WELL_FOR:
            found.append(replace(matter, message=without_uids(matter.message), is_over=True))
            told = replace(told, told_at=None, told="ok")
        after[matter.name] = told
    return found, after


def _matters(matter: Matter) -> bool:
    return matter.severity == "critical" or (matter.severity == "warning" and matter.name in WARNINGS)


def _is_to_be_told(told: Told, now: datetime) -> bool:
    assert told.since is not None
    if now - told.since < WRONG_FOR and now >= told.since:
        return False
    if told.told_at is None or told.told_at > now:  # a clock that was put back must not keep it quiet
        return True
    return now - told.told_at >= AGAIN or (told.severity, told.told) == ("critical", "warning")


def without_uids(text: str) -> str:
    """A text without the UIDs of studies and objects: whoever reads mails on the way has no business with them."""
    return _UID.sub("(UID)", text)
