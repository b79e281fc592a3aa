"""How far what comes back behind a restore is, and how long it takes yet. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pacs.model.sizes import format_size


@dataclass(frozen=True)
class BulkProgress:
    """What is to come back, what has, and how fast.

    lately_bytes came back in the last lately_s. left_s: how long it takes yet; None: nobody can say.
    """

    objects: int
    size_bytes: int
    done_objects: int
    done_bytes: int
    left_s: float | None

    @property
    def percent(self) -> float:
        """How much of the bytes is back."""
        return 100.0 if self.size_bytes <= 0 else min(100.0, 100 * self.done_bytes / self.size_bytes)


def bulk_progress(
    objects: int, size_bytes: int, done_objects: int, done_bytes: int, begun_at: datetime, now: datetime,
    lately_bytes: int, lately_s: float,
) -> BulkProgress:  # fmt: skip
    """Progress with the time left: at the pace of lately, or of all the time if nothing came lately."""
    left = max(0, size_bytes - done_bytes)
    elapsed_s = max(1.0, (now - begun_at).total_seconds())
    pace = lately_bytes / min(lately_s, elapsed_s)  # bytes a second
    left_s = None if pace <= 0 and left else left / pace if left else 0.0
    return BulkProgress(objects, size_bytes, min(done_objects, objects), min(done_bytes, size_bytes), left_s)


def in_words(progress: BulkProgress) -> str:
    """A line for a person: how much is back, and when all will be."""
    line = (
        f"{progress.percent:.0f} % is back: {progress.done_objects:,} of {progress.objects:,} objects, "
        f"{format_size(progress.done_bytes)} of {format_size(progress.size_bytes)}"
    )
    if progress.left_s is None:
        return f"{line}; nothing came lately"
    return line if progress.done_bytes >= progress.size_bytes else f"{line}; {format_duration(progress.left_s)} left"


def format_duration(seconds: float) -> str:
    """A length of time for a person: `40 seconds`, `6 hours`, `3 days`."""
    for name, unit_s, until in (("second", 1, 120), ("minute", 60, 120), ("hour", 3600, 48)):
        number = round(seconds / unit_s)
        if number < until:
            return f"{number} {name}{'' if number == 1 else 's'}"
    return f"{round(timedelta(seconds=seconds) / timedelta(days=1))} days"
