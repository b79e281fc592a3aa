"""Is there room for the database, and for how long on each disk?"""

from __future__ import annotations

from pacs.archive import room
from pacs.archive.forecast import Forecast, forecast
from pacs.checks.check import Result, Severity, Subject
from pacs.index.growth import wal_size_bytes_max
from pacs.model.forecast import format_days
from pacs.model.reserve import clear_bytes, least_volume_bytes
from pacs.model.sizes import format_size

_PAGE = "docs/operate/disk-full.md"


def run(subject: Subject) -> Result:
    """Look at the state's free room against what is kept for the database, then at when which disk is full."""
    settings = subject.settings
    reserve, free = room.reserve_bytes(settings, subject.database), room.free_bytes(settings.data)
    if free < reserve:
        return Result(
            "room", "critical",
            f"the state's disk has {format_size(free)} free, and {format_size(reserve)} are kept for the database: "
            "new images are refused (0xA700)", f"Enlarge it ({_PAGE}).",
        )  # fmt: skip
    if free < clear_bytes(reserve):
        return Result(
            "room", "critical",
            f"the state's disk has {format_size(free)} free; new images are refused below {format_size(reserve)}, "
            f"and then until {format_size(clear_bytes(reserve))} are free", f"Enlarge it ({_PAGE}).",
        )  # fmt: skip
    wal, size = wal_size_bytes_max(subject.database), room.size_bytes(settings.data)
    found = forecast(settings, subject.database, subject.volumes)
    result = _of_forecast(found, settings.forecast_warning_days, settings.forecast_critical_days)
    if result.severity == "ok" and (settings.data / "postgresql").is_dir() and size < least_volume_bytes(wal):
        return Result(
            "room", "warning",
            f"the state's disk has {format_size(size)}; the database's log alone may take {format_size(wal)}",
            f"Enlarge it to {format_size(least_volume_bytes(wal))} or more ({_PAGE}).",
        )  # fmt: skip
    return result


def _of_forecast(found: Forecast, warning_days: float, critical_days: float) -> Result:
    if found.growth is None:
        return Result("room", "ok", "nothing to forecast from yet: no day with images is over")
    soonest = min(
        (each for each in found.outlooks if each.full_in_days is not None),
        key=lambda each: each.full_in_days or 0, default=None,
    )  # fmt: skip
    said = "; ".join(f"{each.disk.name} {format_days(each.full_in_days)}" for each in found.outlooks)
    message = f"{said} ({format_size(found.growth.bytes_per_day)} a day: {found.growth.basis})"
    severity: Severity = "ok"
    if soonest is not None and soonest.full_in_days is not None:
        if soonest.full_in_days < critical_days and not found.growth.is_rough:
            severity = "critical"
        elif soonest.full_in_days < warning_days:
            severity = "warning"
    if soonest is None or severity == "ok":
        return Result("room", "ok", message)
    return Result("room", severity, message, f"Enlarge {soonest.disk.name}, or add a disk ({_PAGE}).")
