"""Is every software RAID whole? From what the kernel says (/sys/block/md*/md): no right of root's is needed.

Which disk is which (its serial number, where it is plugged in) stands in what `pacs raid note` wrote down.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.checks.check import ORDER, Figure, Ground, Result, Severity
from pacs.model.restore_progress import format_duration
from pacs.storage import arrays
from pacs.storage.arrays import Array

#: What is known of the disks of each array (machine/raid_notes.py), by the array's device.
REPORT = Path("/run/pacs-machine/raid.json")
#: All arrays are compared once a month; a comparison takes days on large disks, and may be put off by a rebuild.
LATE = timedelta(days=62)


def run(_ground: Ground) -> Result:
    """Look at each array."""
    noted = _noted()
    found = [_of(each, noted.get(each.device, {})) for each in arrays.arrays()]
    if not found:
        return Result("raid", "ok", "there is none")
    severity = max((each[0] for each in found), key=ORDER.index)
    hint = "" if severity == "ok" else "`pacs raid status` says which disk, by its serial number: docs/operate/raid.md."
    figures = tuple(each[2] for each in found)
    return Result("raid", severity, "; ".join(each[1] for each in found), hint, figures)


def _noted() -> dict[str, Any]:
    try:
        found = json.loads(REPORT.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {each["device"]: each for each in found if isinstance(each, dict) and "device" in each}


def _of(array: Array, noted: dict[str, Any]) -> tuple[Severity, str, Figure]:
    name = noted.get("name") or array.device
    said = f"{name} ({array.level}, {array.disks} disks)"
    figure = Figure(f"{name}_missing_disks", array.missing, 1, 1)
    if not array.runs:
        return "critical", f"{said} does not run", figure
    if array.missing:
        lost = ", ".join(_lost(array, noted))
        gone = f"{array.missing} missing{f' (serial number {lost})' if lost else ''}"
        if array.doing in arrays.REBUILDING:
            return "critical" if array.may_fail < 1 else "warning", f"{said}: {gone}, rebuilt{_progress(array)}", figure
        more = "the next one that fails loses data" if array.may_fail < 1 else f"{array.may_fail} more may fail"
        return "critical", f"{said}: {gone}; {more}", figure
    if array.mismatches and array.level in ("raid5", "raid6", "raid4"):
        wrong = f"the last comparison found {array.mismatches} sectors that do not fit together"
        return "warning", f"{said}: {wrong}", figure
    if array.doing != "idle":
        return "ok", f"{said}: whole, {array.doing}{_progress(array)}", figure
    if _is_late(noted):
        return "warning", f"{said}: whole, and its disks were not compared for two months", figure
    return "ok", f"{said}: whole", figure


def _lost(array: Array, noted: dict[str, Any]) -> list[str]:
    """Serial numbers of the disks that were in those places that nobody has now."""
    taken = {str(each.slot) for each in array.members if each.slot is not None and "in_sync" in each.words}
    places = noted.get("places", {})
    return [str(places[slot]["serial"] or "unknown") for slot in sorted(places) if slot not in taken]


def _is_late(noted: dict[str, Any]) -> bool:
    try:
        return clock.now() - datetime.fromisoformat(noted["compared"]) > LATE
    except (KeyError, ValueError, TypeError):
        return False


def _progress(array: Array) -> str:
    if array.percent is None:
        return ""
    left = f", {format_duration(array.left_s)} left" if array.left_s else ""
    return f" to {array.percent:.0f} %{left}"
