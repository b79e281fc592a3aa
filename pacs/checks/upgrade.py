"""How did the last upgrade go?"""

from __future__ import annotations

from datetime import datetime, timedelta

from pacs import clock
from pacs.checks.check import Ground, Result
from pacs.storage.upgrade_record import ROLLED_BACK, UpgradeFiles

#: So long it is told of one that was rolled back.
_TOLD = timedelta(days=7)


def run(subject: Ground) -> Result:
    """Look at the record of the last upgrade."""
    record = UpgradeFiles(subject.settings.data).record()
    if record is None:
        return Result("upgrade", "ok", "there was no upgrade yet")
    words = f"the upgrade from {record.origin.version} to {record.target.version}"
    if record.is_open:
        state = "is on trial" if record.began_at else "waits for a restart"
        return Result("upgrade", "ok", f"{words} {state}")
    if record.outcome == ROLLED_BACK and clock.now() - datetime.fromisoformat(record.ended_at) < _TOLD:
        return Result(
            "upgrade", "warning", f"{words} was rolled back: {record.why}",
            "Version " + record.origin.version + " goes on (docs/operate/upgrade.md).",
        )  # fmt: skip
    return Result("upgrade", "ok", f"{words}: {record.outcome} {record.ended_at}")
