"""Does anybody wait to be let in, and was anything refused of late?"""

from __future__ import annotations

from datetime import timedelta

from pacs import clock
from pacs.archive.devices import pending
from pacs.checks.check import Result, Subject
from pacs.index.refusals import PENDING_KINDS, QUIET_KINDS, RefusalKind, list_refusals

RECENT = timedelta(days=1)


def run(subject: Subject) -> Result:
    """Look at who was refused, and at the objects and contexts of known devices that were, since a day.

    What nobody has to do anything about is counted, and no warning.
    """
    since = clock.now() - RECENT
    waiting = [each for each in pending(subject.database) if each.last_at >= since]
    recent = [row for row in list_refusals(subject.database) if row["last_at"] >= since]
    objects = sum(row["kind"] == RefusalKind.OBJECT for row in recent)
    quiet = sum(row["kind"] in QUIET_KINDS for row in recent)
    others = sum(row["kind"] not in PENDING_KINDS for row in recent) - objects - quiet
    said = [
        f"{count} {words}"
        for count, words in (
            (len(waiting), "callers wait to be accepted"),
            (objects, "kinds of refused objects"),
            (others, "kinds of other refusals"),
        )
        if count
    ]
    if not said:
        more = f" but {quiet} kinds of things that are no service of this archive" if quiet else ""
        return Result("devices", "ok", f"nothing was refused since a day{more}")
    hints = ["`pacs device pending`"] * bool(waiting) + ["`pacs refusal list`"] * bool(objects + others)
    return Result("devices", "warning", ", ".join(said), f"{' and '.join(hints)} (docs/operate/devices.md).")
