"""Can the disks of the system and of the instance be written to, and have they room and names left?

What is on a volume, and whether it is the right one, the check `volumes` says, with the database. Shares are not looked
at here: a call on a dead one never returns.
"""

from __future__ import annotations

import os
from pathlib import Path

from pacs.checks.check import ORDER, Figure, Ground, Result, Severity
from pacs.model.sizes import format_size
from pacs.storage.mounts import Mount, mount_of

#: So full the system's disk may be, which nothing grows on but the journal, and so few names may be left [%].
_SYSTEM_PERCENT, _NAMES_PERCENT = 90.0, 95.0
_VOLUME_PERCENT = 98.0


def run(ground: Ground) -> Result:
    """Look at each file system once: that of the system, of the state, and of the tiers' roots."""
    settings = ground.settings
    places = {"system": Path("/"), "state": settings.data, "tier1": settings.tier1_root, "tier2": settings.tier2_root}
    seen: dict[str, tuple[str, Mount, Path]] = {}
    for name, place in places.items():
        mount = mount_of(place)
        seen.setdefault(mount.mount_point, (name, mount, place))
    found = [_of(name, mount, place) for name, mount, place in seen.values()]
    severity = max((each[0] for each in found), key=ORDER.index)
    hints = " ".join(dict.fromkeys(hint for each, _said, hint, _figures in found if hint and each == severity))
    figures = tuple(figure for each in found for figure in each[3])
    return Result("disks", severity, "; ".join(each[1] for each in found), hints, figures)


def _of(name: str, mount: Mount, place: Path) -> tuple[Severity, str, str, tuple[Figure, ...]]:
    if mount.kind in ("nfs", "smb"):
        return "ok", f"{name}: a share", "", ()
    if mount.is_file_system_read_only and not (name == "system" and place == Path("/") and _is_meant_read_only(mount)):
        return (
            "critical", f"{name}: the file system is read-only",
            "The kernel does that after an error of the disk: `journalctl -k -p err`. Replace the disk "
            "(docs/operate/disks.md).", (),
        )  # fmt: skip
    try:
        state = os.statvfs(mount.mount_point if place == Path("/") or not place.exists() else place)
    except OSError as error:
        return "critical", f"{name}: {error.strerror}", "Look at the disk: `journalctl -k -p err`.", ()
    used = 100 * (1 - state.f_bavail / state.f_blocks) if state.f_blocks else 0.0
    names = 100 * (1 - state.f_favail / state.f_files) if state.f_files else 0.0
    limit = _SYSTEM_PERCENT if name == "system" else _VOLUME_PERCENT
    figures = (
        Figure(f"{name}_used_percent", round(used, 1), limit),
        Figure(f"{name}_names_used_percent", round(names, 1)),
    )
    said = f"{name}: {used:.0f} % used, {format_size(state.f_bavail * state.f_frsize)} free"
    if names > _NAMES_PERCENT:
        return "critical", f"{said}, and {names:.0f} % of its names for files", "Make a larger file system.", figures
    if used > limit:
        hint = "`journalctl --vacuum-size=200M` makes room." if name == "system" else "docs/operate/disk-full.md."
        return "warning", said, hint, figures
    return "ok", said, "", figures


def _is_meant_read_only(mount: Mount) -> bool:
    """An image that is run from a squashfs or the like is read-only from the start."""
    return mount.file_system in ("squashfs", "erofs", "iso9660", "overlay")
