"""Does what waits for the worker get done: studies that were asked for, copies that are to be repaired?

What waits for repositories, devices and the standby have checks of their own: `shipping`, `commitments`, `standby`.
"""

from __future__ import annotations

from pacs.checks.check import Figure, Result, Subject
from pacs.index.damage import damage_counts
from pacs.index.recalls import oldest_waiting

#: So long somebody waits for a study that was asked for [s]. A tape or a bucket's cold storage may take hours.
LATE_S, TOO_LATE_S = 3600.0, 12 * 3600.0


def run(subject: Subject) -> Result:
    """Look at the oldest recall that somebody waits for, and count the rest."""
    recalls, repairs = oldest_waiting(subject.database), damage_counts(subject.database)["out_of_service"]
    waiting, oldest_s = recalls["waiting"], recalls["oldest_s"] or 0.0
    figures = (
        Figure("recalls", waiting),
        Figure("recall_oldest_seconds", round(oldest_s), LATE_S, TOO_LATE_S),
        Figure("repairs", repairs),
    )
    if not waiting and not repairs:
        return Result("queues", "ok", "nothing waits", "", figures)
    said = f"{waiting} recalls and {repairs} repairs wait"
    if oldest_s > LATE_S:
        return Result(
            "queues", "critical" if oldest_s > TOO_LATE_S else "warning",
            f"{said}; the oldest recall for {oldest_s / 3600:.1f} hours",
            "`pacs tier status` says why; does the worker run? `systemctl status pacs-worker`.", figures,
        )  # fmt: skip
    return Result("queues", "ok", said, "", figures)
