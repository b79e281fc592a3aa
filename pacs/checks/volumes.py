"""Are the volumes there, and is there room on them?"""

from __future__ import annotations

from pacs.checks.check import Result, Subject
from pacs.storage.files import RESERVED_BYTES


def run(subject: Subject) -> Result:
    """Look at each volume's identity file and free space."""
    lines, severity, hint = [], "ok", ""
    for tier, volume in sorted(subject.by_tier.items()):
        volume.require_present()
        free = volume.free_bytes()
        lines.append(f"tier {tier}: {volume.used_percent():.0f} % used, {free / 1e9:.1f} GB free")
        if free < 2 * RESERVED_BYTES:
            severity, hint = "critical", f"Enlarge the disk of tier {tier}: new images are refused (0xA700)."
        elif volume.used_percent() > 95 and severity == "ok":
            severity, hint = "warning", f"Enlarge the disk of tier {tier}."
    return Result("volumes", severity, "; ".join(lines), hint)  # type: ignore[arg-type]
