"""Is every object's file where its row says? From the last reconciliation."""

from __future__ import annotations

from datetime import timedelta

from pacs import clock
from pacs.checks.check import Result, Subject
from pacs.index.runs import newest_run, totals


def run(subject: Subject) -> Result:
    """Look at the copies out of service, and at when files and rows were last compared."""
    lost = totals(subject.database)["lost_copies"]
    if lost:
        return Result(
            "copies", "critical", f"{lost} files are missing or bad", "Look at the volumes' disks; restore if need be."
        )
    last = newest_run(subject.database, "reconcile")
    if last is None:
        return Result("copies", "ok", "no file is known to be missing; not compared yet")
    age = clock.now() - last["finished_at"]
    if age > timedelta(days=2):
        return Result("copies", "warning", f"files and rows last compared {age.days} days ago", "`pacs reconcile run`")
    return Result("copies", "ok", f"{last['result']['files']} files compared with their rows, none missing")
