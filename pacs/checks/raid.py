"""Is every software RAID whole? From what the kernel says (/sys/block/md*/md): no right of root's is needed."""

from __future__ import annotations

from pathlib import Path

from pacs.checks.check import ORDER, Figure, Ground, Result, Severity

BLOCK = Path("/sys/block")
#: How many disks may be missing before an array has lost data.
_SPARE_OF = {"raid1": None, "raid10": 1, "raid4": 1, "raid5": 1, "raid6": 2, "raid0": 0, "linear": 0}


def run(_ground: Ground) -> Result:
    """Look at each array."""
    found = [_of(folder) for folder in sorted(BLOCK.glob("md*/md")) if (folder / "level").exists()]
    if not found:
        return Result("raid", "ok", "there is none")
    severity = max((each[0] for each in found), key=ORDER.index)
    hint = "" if severity == "ok" else "`cat /proc/mdstat` and `mdadm --detail` say which disk; replace it."
    figures = tuple(each[2] for each in found)
    return Result("raid", severity, "; ".join(each[1] for each in found), hint, figures)


def _of(folder: Path) -> tuple[Severity, str, Figure]:
    name, level = folder.parent.name, _word(folder, "level")
    disks, state = int(_word(folder, "raid_disks") or 0), _word(folder, "array_state")
    missing, doing = int(_word(folder, "degraded") or 0), _word(folder, "sync_action") or "idle"
    said = f"{name} ({level}, {disks} disks)"
    figure = Figure(f"{name}_missing_disks", missing, 1, 1)
    if state in ("clear", "inactive", "broken"):
        return "critical", f"{said} does not run", figure
    if missing:
        spare = _SPARE_OF.get(level, 0)
        left = (disks - 1 if spare is None else spare) - missing
        if doing in ("recover", "resync", "reshape"):
            return (
                "critical" if left < 1 else "warning",
                f"{said}: {missing} missing, rebuilt{_progress(folder)}",
                figure,
            )
        more = "the next one that fails loses data" if left < 1 else f"{left} more may fail"
        return "critical", f"{said}: {missing} missing; {more}", figure
    wrong = int(_word(folder, "mismatch_cnt") or 0)
    if wrong and level in ("raid5", "raid6", "raid4"):
        return "warning", f"{said}: the last comparison found {wrong} sectors that do not fit together", figure
    if doing != "idle":
        return "ok", f"{said}: whole, {doing}{_progress(folder)}", figure
    return "ok", f"{said}: whole", figure


def _progress(folder: Path) -> str:
    done, _, whole = _word(folder, "sync_completed").partition(" / ")
    return f" to {100 * int(done) / int(whole):.0f} %" if done.isdigit() and whole.isdigit() and int(whole) else ""


def _word(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text("ascii").strip()
    except OSError:
        return ""
