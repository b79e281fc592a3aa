"""What is known of the disks of each array, written down while they still answer: which serial number is where.

A disk that has died or was pulled says nothing any more, and whoever stands before the machine needs its number. Kept
on the state volume, so that it outlives the system disk; and in /run for `pacs check`, which may not ask disks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.machine import raid
from pacs.storage import arrays, durable
from pacs.storage.arrays import Array

REPORT = Path("/run/pacs-machine/raid.json")


def kept_at(state: Path) -> Path:
    """Where it is on the state volume."""
    return state / "machine/raid.json"


def note(state: Path | None, report: Path = REPORT) -> list[dict[str, Any]]:
    """Look at every array and write down what is new. state: where the state volume is, None if it is not here."""
    before = {each["uuid"]: each for each in known(state, report)}
    now = clock.now().isoformat(timespec="seconds")
    found = []
    for array in arrays.arrays():
        facts = raid.described(array)
        places = {str(each.slot): raid.disk_facts(each.disk) for each in array.members if _is_in_place(each)}
        found.append(noted(array, facts, places, before.get(facts["uuid"], {}), now))
    lasting = [*found, *(each for uuid, each in before.items() if uuid not in {one["uuid"] for one in found})]
    report.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    durable.replace_file(report, json.dumps(found).encode(), 0o644)
    if state is not None and lasting:
        durable.make_folders(kept_at(state).parent)
        durable.replace_file(kept_at(state), json.dumps(lasting, indent=1).encode(), 0o644)
    return found


def known(state: Path | None, report: Path = REPORT) -> list[dict[str, Any]]:
    """What was written down last; what cannot be read is as if it were not there: it is found anew."""
    for path in ([kept_at(state)] if state is not None else []) + [report]:
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, list):
            return [each for each in found if isinstance(each, dict) and "uuid" in each]
    return []


def noted(
    array: Array, facts: dict[str, str], places: dict[str, Any], before: dict[str, Any], now: str
) -> dict[str, Any]:
    """What is to be known of an array: what its disks say now, and of places that are empty what was there last."""
    has_compared = before.get("doing") == "check" and array.doing != "check" and array.last_done in ("check", "")
    return {
        "device": array.device,
        "uuid": facts["uuid"],
        "name": facts["name"],
        "doing": array.doing,
        "compared": now if has_compared else before.get("compared", now),
        "places": {**before.get("places", {}), **places},
    }


def _is_in_place(member: arrays.Member) -> bool:
    # One that is being rebuilt takes its place when it is done: until then the old number is what is looked for.
    return member.slot is not None and not member.has_failed and "in_sync" in member.words
