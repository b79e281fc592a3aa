"""The recent lines of the system's journal of our units, and how the units are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pacs.machine.commands import MachineError, output

UNITS = ("pacs-*", "postgresql@*", "nginx.service", "chrony.service")
_UNIT = re.compile(r"(?:pacs-[a-z-]+(?:@[0-9])?|postgresql@17-main|nginx|chrony)\.(?:service|socket|timer|path|target)")
_LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
_SHOWN = (
    "Id", "LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts", "UnitFileState",
    "StateChangeTimestamp", "MemoryCurrent", "TasksCurrent", "NextElapseUSecRealtime", "LastTriggerUSec",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A line: when, how bad, which unit (empty if it is none of ours), and what it says as it stands there."""

    at: datetime
    level: str
    unit: str
    message: str


def recent_lines(lines_max: int, days: int) -> list[Line]:
    """The newest lines of our units, the oldest first. Raise MachineError if there is no journal to be read."""
    words = ["journalctl", "--quiet", "--no-pager", "--output=json", f"--lines={lines_max}", f"--since=-{days}d"]
    words += [f"--unit={unit}" for unit in UNITS]
    try:
        done = subprocess.run(words, capture_output=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"The journal cannot be read: {type(error).__name__}. Is systemd here?") from error
    if done.returncode:
        raise MachineError(f"`journalctl` ended with {done.returncode}. May this user read it?")
    return list(_lines(done.stdout.splitlines()))


def unit_states() -> list[dict[str, str]]:
    """How our units are, with what is known to be harmless of each. Raise MachineError without systemd."""
    words = ("systemctl", "show", "--all", "--no-pager", f"--property={','.join(_SHOWN)}", *UNITS)
    found = [_properties(block) for block in output(*words).split("\n\n")]
    return [each for each in found if _UNIT.fullmatch(each.get("Id", ""))]


def _lines(records: Iterable[bytes]) -> Iterator[Line]:
    for record in records:
        try:
            found: dict[str, Any] = json.loads(record)
            at = datetime.fromtimestamp(int(found["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
            level = _LEVELS[int(found.get("PRIORITY", 6))]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            continue  # not a record of the journal
        named = str(found.get("UNIT") or found.get("_SYSTEMD_UNIT") or "")
        yield Line(at, level, named if _UNIT.fullmatch(named) else "", _text(found.get("MESSAGE")))


def _text(message: object) -> str:
    """A message: a text, or its bytes as numbers where they are not UTF-8 (systemd.journal-fields(7))."""
    if isinstance(message, str):
        return message
    if isinstance(message, list) and all(isinstance(each, int) and 0 <= each < 256 for each in message):
        return bytes(message).decode("utf-8", "replace")
    return ""


def _properties(block: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.splitlines())
    return {name: value for name, _, value in pairs if name in _SHOWN}
