"""Are the volumes there, can they be written to, and is there room on them?"""

from __future__ import annotations

from pathlib import Path

from pacs.checks.check import ORDER, Result, Severity, Subject
from pacs.errors import PacsError
from pacs.index.volumes import REPOSITORY_TIER, KnownVolume
from pacs.storage.files import RESERVED_BYTES
from pacs.storage.kinds import Volume
from pacs.storage.mounts import mount_of


def run(subject: Subject) -> Result:
    """Look at each volume's identity file, file system and free space."""
    found = [_look_at(subject, row) for row in subject.volumes.rows if row.tier < REPOSITORY_TIER]
    if not found:
        return Result("volumes", "critical", "there is none", "Add one: `pacs volume add`.")
    severity = max((severity for severity, _line, _hint in found), key=ORDER.index)
    hints = " ".join(hint for each, _line, hint in found if hint and each == severity)
    return Result("volumes", severity, "; ".join(line for _severity, line, _hint in found), hints)


def _look_at(subject: Subject, row: KnownVolume) -> tuple[Severity, str, str]:
    volume = subject.volumes.by_id.get(row.volume_id)
    if volume is None:
        reason = subject.volumes.absent.get(row.volume_id)
        return "critical", f"{row.name}: {reason}", "See docs/operate/volumes.md."
    try:
        volume.require_writable()
        if row.tier == 1 and row.state == "active" and not volume.promise.may_receive:
            why = mount_of(Path(row.location)).why_it_may_not_receive or "Its kind may not receive."
            return "warning", f"{row.name}: receives nothing", why
        return _room(row, volume)
    except PacsError as error:
        return "critical", f"{row.name}: {error}", "See docs/operate/volumes.md."


def _room(row: KnownVolume, volume: Volume) -> tuple[Severity, str, str]:
    room = volume.room()
    if room.free_bytes is None:
        return "ok", f"{row.name}: {room.used_bytes / 1e9:.1f} GB used", ""
    state = ", to be emptied" if row.state == "draining" else ""
    line = f"{row.name}: {room.used_percent:.0f} % used, {room.free_bytes / 1e9:.1f} GB free{state}"
    if row.state == "draining":
        return "ok", line, ""
    if room.free_bytes < 2 * RESERVED_BYTES:
        return "critical", line, f"Enlarge the disk of {row.name}, or add a volume to tier {row.tier}: it is full."
    if room.used_percent > 95:
        return "warning", line, f"Enlarge the disk of {row.name}, or add a volume to tier {row.tier}."
    return "ok", line, ""
