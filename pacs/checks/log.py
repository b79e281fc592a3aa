"""Does the database's log reach the repositories? What is not there yet is lost if this machine is."""

from __future__ import annotations

from datetime import datetime

from pacs import clock
from pacs.backup.log_shipping import ShippedLog
from pacs.backup.log_spool import LogSpool
from pacs.backup.repositories import repositories
from pacs.checks.check import ORDER, Result, Severity, Subject
from pacs.index.server import archiver

#: From here on it is told of, and from here on it is critical [s].
LATE_S, VERY_LATE_S = 180.0, 1800.0
_HINT = "`pacs backup status` says more (docs/operate/backup.md)."


def run(subject: Subject) -> Result:
    """Look at what waits in the spool, for how long, and whether PostgreSQL gets its log into it."""
    names = [each.name for each in repositories(subject.settings.data)]
    if not names:
        return Result("log", "ok", "there is no repository")  # which is the check `backup`'s to tell
    if archiver(subject.database).failed_at is not None:
        return Result(
            "log", "critical", "PostgreSQL cannot put its log aside for shipping",
            "It keeps it, and its disk fills. Look at PostgreSQL's log, and at pgbackrest-spool on the state's disk.",
        )  # fmt: skip
    spool = LogSpool(subject.settings.data)
    found = [_of(ShippedLog(spool, name)) for name in names]
    severity: Severity = max((each[0] for each in found), key=ORDER.index)
    return Result("log", severity, "; ".join(each[1] for each in found), "" if severity == "ok" else _HINT)


def _of(shipped: ShippedLog) -> tuple[Severity, str]:
    state, lag_s = shipped.read(), shipped.lag_s()
    if state.gap_since and state.backup_at:
        since = datetime.fromisoformat(state.gap_since)
        why = f" ({state.error})" if state.error else ""
        return "critical", f"{shipped.name}: not whole since {since:%d %b %H:%M} UTC, until a new backup{why}"
    if not state.ready:
        return "warning", f"{shipped.name}: waits for its first backup"
    if state.point_waits_since:
        waits_s = (clock.now() - datetime.fromisoformat(state.point_waits_since)).total_seconds()
        if waits_s >= VERY_LATE_S and lag_s < LATE_S:
            return "warning", f"{shipped.name}: no recovery point for {waits_s / 60:.0f} min: images are not there yet"
    if lag_s < LATE_S:
        return "ok", f"{shipped.name}: {lag_s:.0f} s behind" if lag_s >= 1 else f"{shipped.name}: up to date"
    why = f": {state.error}" if state.error else ""
    return "critical" if lag_s >= VERY_LATE_S else "warning", f"{shipped.name}: {lag_s / 60:.0f} min behind{why}"
