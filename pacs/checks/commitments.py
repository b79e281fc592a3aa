"""Do devices know what they asked the archive to commit to?"""

from __future__ import annotations

from pacs.checks.check import Result, Subject
from pacs.index.commitments import late

#: A device that does not take its report for this long is told of [s].
LATE_S = 3600.0


def run(subject: Subject) -> Result:
    """Look for reports that could not be delivered."""
    rows = late(subject.database, LATE_S)
    if not rows:
        return Result("commitments", "ok", "none waits for its device")
    hint = "See why: `pacs commitment list`. `pacs commitment retry` or `drop` settles one that was given up."
    who = ", ".join(row["calling_ae"] for row in rows)
    given_up = sum(row["given_up"] for row in rows)
    if given_up:
        return Result("commitments", "critical", f"{given_up} were given up; their devices keep waiting: {who}", hint)
    waiting = sum(row["waiting"] for row in rows)
    return Result("commitments", "warning", f"{waiting} wait for their devices to take the answer: {who}", hint)
