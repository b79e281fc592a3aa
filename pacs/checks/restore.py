"""Is all back that a restore brings back?"""

from __future__ import annotations

from pacs import clock
from pacs.checks.check import Result, Subject
from pacs.index.database import Row
from pacs.index.restores import newest_restore
from pacs.model.restore_progress import BulkProgress, bulk_progress, in_words

LATELY_S = 1800.0

_STATUS = "`pacs restore status` shows it (docs/operate/restore.md)."


def progress_of(found: Row) -> BulkProgress:
    """How far a restore is, of its row as index/restores.py gives it."""
    return bulk_progress(
        found["objects"], found["size_bytes"], found["done_objects"], found["done_bytes"], found["begun_at"],
        clock.now(), found["lately_bytes"], LATELY_S,
    )  # fmt: skip


def run(subject: Subject) -> Result:
    """Look at the newest restore."""
    found = newest_restore(subject.database, LATELY_S)
    if found is None:
        return Result("restore", "ok", "none is under way")
    if found["finished_at"] is not None:
        return Result("restore", "ok", f"all is back of the restore to {found['restored_to']:%Y-%m-%d %H:%M} UTC")
    words = f"restored to {found['restored_to']:%Y-%m-%d %H:%M} UTC; {in_words(progress_of(found))}"
    if found["waiting"]:
        return Result(
            "restore", "warning", f"{words}; {found['waiting']} studies wait: {found['last_error']}",
            f"They are served from the repository meanwhile. {_STATUS}",
        )  # fmt: skip
    return Result("restore", "warning", words, f"All is served from the repository meanwhile. {_STATUS}")
