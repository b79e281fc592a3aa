"""Is there memory left, and was a process ended for want of it?"""

from __future__ import annotations

from pathlib import Path

from pacs.checks.check import Figure, Ground, Result
from pacs.model.sizes import format_size

PROC = Path("/proc")
#: So much of the memory is available, or it is told [%].
LOW_PERCENT, VERY_LOW_PERCENT = 10.0, 5.0


def run(_ground: Ground) -> Result:
    """Look at what the kernel says is available, and at what it has ended since the boot."""
    sizes = _table(PROC / "meminfo")
    total, available = sizes["MemTotal"] << 10, sizes["MemAvailable"] << 10
    percent = 100 * available / total
    figures = (
        Figure("available_percent", round(percent, 1), LOW_PERCENT, VERY_LOW_PERCENT),
        Figure("available_bytes", available),
    )
    said = f"{format_size(available)} of {format_size(total)} available"
    hint = "Give the machine more memory, and see `systemctl status` for what takes it."
    if percent < VERY_LOW_PERCENT:
        return Result("memory", "critical", said, hint, figures)
    if percent < LOW_PERCENT:
        return Result("memory", "warning", said, hint, figures)
    ended = _table(PROC / "vmstat").get("oom_kill", 0)
    if ended:
        said = f"{said}; since the boot {ended} processes were ended for want of it"
        return Result("memory", "warning", said, f"`journalctl -k -g 'Out of memory'` says which. {hint}", figures)
    return Result("memory", "ok", said, "", figures)


def _table(path: Path) -> dict[str, int]:
    """Name → number, of a file of /proc that has one a line."""
    found = {}
    for line in path.read_text("ascii").splitlines():
        name, number, *_unit = line.replace(":", " ").split()
        found[name] = int(number)
    return found
