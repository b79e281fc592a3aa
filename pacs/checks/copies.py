"""Is every object's file where its row says, and whole? What is not: is it being repaired, or lost?"""

from __future__ import annotations

from datetime import timedelta

from pacs import clock
from pacs.checks.check import Result, Subject
from pacs.index.damage import LOOKED_AT_MAX, damage_counts, lost_studies
from pacs.index.database import Row
from pacs.index.runs import newest_run

#: How many studies are named; `pacs repair list` has all.
_NAMED_MAX = 5


def run(subject: Subject) -> Result:
    """Look at the copies out of service, and at when files and rows were last compared."""
    counts = damage_counts(subject.database)
    if counts["lost"]:
        return _lost(counts, lost_studies(subject.database, _NAMED_MAX + 1))
    if counts["out_of_service"] >= LOOKED_AT_MAX:
        said = f"{counts['out_of_service']} copies are missing or bad"
        return Result("copies", "critical", said, "Is it a whole volume? See `pacs repair list`, and its disk.")
    if counts["out_of_service"]:
        said = f"{counts['out_of_service']} copies are missing or bad; their objects have other copies"
        return Result(
            "copies", "warning", said, "They are repaired by themselves; if that lasts, `pacs repair list` says why."
        )
    return _compared(subject, counts)


def _lost(counts: Row, studies: list[Row]) -> Result:
    named = [f"{row['study_instance_uid']} (sent by {_senders(row)})" for row in studies[:_NAMED_MAX]]
    many = " or more" if counts["out_of_service"] >= LOOKED_AT_MAX else ""
    more = " and more" if len(studies) > _NAMED_MAX else ""
    return Result(
        "copies", "critical", f"{counts['lost']}{many} objects have no good copy, of study {', '.join(named)}{more}",
        "Send these studies again from the device: that heals them. All: `pacs repair list`. Look at the disks.",
    )  # fmt: skip


def _senders(row: Row) -> str:
    return ", ".join(row["calling_aes"] or ["a device that is not known any more"])


def _compared(subject: Subject, counts: Row) -> Result:
    repaired = f"; {counts['repaired']} copies were repaired so far" if counts["repaired"] else ""
    last = newest_run(subject.database, "reconcile")
    if last is None:
        return Result("copies", "ok", f"no file is known to be missing; not compared yet{repaired}")
    failed = last["result"].get("failed")
    if failed:
        return Result("copies", "warning", f"not all was compared: {'; '.join(failed)}", "`pacs reconcile run`")
    age = clock.now() - last["finished_at"]
    if age > timedelta(days=2):
        return Result("copies", "warning", f"files and rows last compared {age.days} days ago", "`pacs reconcile run`")
    return Result("copies", "ok", f"{last['result']['files']} files compared with their rows, none missing{repaired}")
