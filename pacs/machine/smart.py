"""Asks every disk of this machine how it is (SMART), and writes it down: only root may ask, which the checks are not.

A disk without SMART, as virtual ones are, is left out. One that sleeps is not woken.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.machine.commands import MachineError, run
from pacs.storage import durable

REPORT = Path("/run/pacs-machine/smart.json")
#: smartctl's exit code is a set of bits; of these the two lowest say that there is no answer at all.
_ALL_CODES = range(256)


def write(report: Path) -> int:
    """Ask, and write the report; return how many disks have SMART. Raise MachineError if smartctl is not there."""
    found = [answer for device, kind in _devices() if (answer := _ask(device, kind)) is not None]
    report.parent.mkdir(mode=0o755, exist_ok=True)
    text = json.dumps({"at": clock.now().isoformat(timespec="seconds"), "disks": found})
    durable.replace_file(report, text.encode(), 0o644)
    return len(found)


def _devices() -> list[tuple[str, str]]:
    """Each disk, and how smartctl speaks to it. Behind a RAID controller there may be several of one name."""
    scanned = _json("--scan-open")
    return [(str(each["name"]), str(each["type"])) for each in scanned.get("devices", [])]


def _ask(device: str, kind: str) -> dict[str, Any] | None:
    answer = _json("--all", "--nocheck=standby", "--device", kind, device)
    has_smart = "smart_status" in answer or "nvme_smart_health_information_log" in answer
    return answer if has_smart else None


def _json(*words: str) -> dict[str, Any]:
    said = run("smartctl", "--json", *words, accept=_ALL_CODES).stdout
    try:
        found = json.loads(said or "{}")
    except ValueError as error:
        raise MachineError(f"smartctl {' '.join(words)} did not say JSON: {said[:100]!r}") from error
    return found if isinstance(found, dict) else {}
