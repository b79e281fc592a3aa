"""Did the last selftest pass, and was it of late?"""

from __future__ import annotations

from datetime import datetime, timedelta

from pacs import clock
from pacs.checks.check import Result, Subject
from pacs.index.runs import newest_run
from pacs.storage.volume import read_identity

#: The timer runs it every hour.
LATE = timedelta(hours=3)


def run(subject: Subject) -> Result:
    """Look at the last run of the selftest."""
    last = newest_run(subject.database, "selftest")
    if last is None:
        made = datetime.fromisoformat(read_identity(subject.settings.data).created)
        if clock.now() - made < LATE:
            return Result("selftest", "ok", "not run yet: the archive is young")
        return Result("selftest", "warning", "never ran", "It runs every hour; now: `pacs selftest`.")
    age = clock.now() - last["finished_at"]
    ago = f"{age.total_seconds() / 60:.0f} minutes ago" if age < timedelta(days=2) else f"{age.days} days ago"
    steps = last["result"].get("steps", [])
    if not last["succeeded"]:
        failed = next((step for step in steps if not step["passed"]), {"name": "its beginning", "message": ""})
        said = f"failed {ago} at {failed['name']}: {failed['message']}"
        return Result("selftest", "critical", said, "Again: `pacs selftest` (docs/operate/selftest.md).")
    if age > LATE:
        return Result("selftest", "warning", f"last ran {ago}", "See `systemctl status pacs-selftest`.")
    return Result("selftest", "ok", f"{len(steps)} steps passed {ago}")
