"""Do the disks themselves expect to fail? As `pacs machine smart` last wrote down: to ask a disk is root's.

Virtual disks have no SMART, and that is no fault.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.checks.check import ORDER, Figure, Ground, Result, Severity

#: What was said of the disks: a list of `smartctl --json --all`'s answers (machine/smart.py).
REPORT = Path("/run/pacs-machine/smart.json")
#: The timer asks every half hour.
LATE = timedelta(hours=3)
_HOT_C = 60
#: ATA attributes of which any raw value but 0 is a disk that begins to fail: reallocated, pending, uncorrectable.
_BAD_ATTRIBUTES = {5: "reallocated sectors", 197: "sectors that cannot be read", 198: "uncorrectable sectors"}
_HINT = "Replace the disk while it still answers (docs/operate/disks.md); `smartctl --all DEVICE` says more."


def run(_ground: Ground) -> Result:
    """Look at what the disks said."""
    try:
        report = json.loads(REPORT.read_text("utf-8"))
        at = datetime.fromisoformat(report["at"])
    except FileNotFoundError:
        return Result("smart", "ok", "not watched on this machine")
    except (OSError, ValueError, KeyError, TypeError):
        return Result("smart", "warning", f"{REPORT} cannot be read", "`systemctl status pacs-smart` says why.")
    if clock.now() - at > LATE:
        return Result("smart", "warning", "the disks were not asked for hours", "See `systemctl status pacs-smart`.")
    found = [_of(each) for each in report["disks"]]
    if not found:
        return Result("smart", "ok", "no disk here has SMART, as in a virtual machine")
    severity = max((each[0] for each in found), key=ORDER.index)
    said = "; ".join(each[1] for each in found if severity == "ok" or each[0] != "ok")
    figures = tuple(figure for each in found for figure in each[2])
    return Result("smart", severity, said, "" if severity == "ok" else _HINT, figures)


def _of(disk: dict[str, Any]) -> tuple[Severity, str, list[Figure]]:
    device = str(disk.get("device", {}).get("name", "a disk"))
    name, figures = device.rpartition("/")[2], []
    wrong: list[str] = []
    for attribute in disk.get("ata_smart_attributes", {}).get("table", []):
        words, raw = (
            _BAD_ATTRIBUTES.get(attribute.get("id")),
            int(attribute.get("raw", {}).get("value", 0)) & 0xFFFFFFFF,
        )
        if words and raw:
            wrong.append(f"{raw} {words}")
    nvme = disk.get("nvme_smart_health_information_log", {})
    if nvme:
        figures.append(Figure(f"{name}_worn_percent", float(nvme.get("percentage_used", 0)), 90))
        if nvme.get("percentage_used", 0) >= 90:
            wrong.append(f"{nvme['percentage_used']} % of its life used")
        if nvme.get("media_errors", 0):
            wrong.append(f"{nvme['media_errors']} media errors")
    degrees = disk.get("temperature", {}).get("current")
    if isinstance(degrees, int | float):
        figures.append(Figure(f"{name}_celsius", float(degrees), _HOT_C))
        if degrees >= _HOT_C:
            wrong.append(f"{degrees} degrees hot")
    if disk.get("smart_status", {}).get("passed") is False or nvme.get("critical_warning", 0):
        return "critical", f"{device} says that it will fail{': ' if wrong else ''}{', '.join(wrong)}", figures
    if wrong:
        return "warning", f"{device}: {', '.join(wrong)}", figures
    return "ok", f"{device}: well", figures
