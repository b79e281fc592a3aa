"""Has the standby all, and could it take over? Is this archive without what it would send, since a promotion?"""

from __future__ import annotations

from pacs.backup.standby_answer import degraded_since
from pacs.backup.standby_files import StandbyFiles
from pacs.backup.standby_status import AtArchive, AtStandby, at_archive, at_standby
from pacs.backup.standby_volumes import Standby, standby_of
from pacs.checks.check import ORDER, Result, Severity, Subject
from pacs.errors import PacsError
from pacs.settings import Settings
from pacs.storage import outbound

#: A standby that lacks an object for longer than the first is late; beyond the second a person looks [s].
LATE_S, TOO_LATE_S = 3 * 60, 30 * 60
#: So much of the log that it has not replayed is late [bytes].
LATE_BYTES = 1 << 30
_HINT = "`pacs standby status` says more; docs/operate/standby.md."


def run(subject: Subject) -> Result:
    """Look at the standby, if there is one."""
    if subject.settings.standby_answer != "off" and StandbyFiles(subject.settings.data).is_alone():
        return Result(
            "standby", "critical", "since the promotion of this node objects are acknowledged without a standby",
            "On the other node `pacs standby follow`, or set standby_answer to off; docs/operate/standby.md.",
        )  # fmt: skip
    if outbound.is_held(subject.settings.data):
        return Result(
            "standby", "warning", "since the promotion of this node nothing is sent by itself",
            "When the other node is surely off or follows: `pacs standby release`.",
        )  # fmt: skip
    known = standby_of(subject.settings.data)
    if known is None:
        return Result("standby", "ok", "no standby")
    degraded = degraded_since(subject.settings.runtime_folder)
    if degraded and subject.settings.standby_answer != "off":
        return Result(
            "standby", "critical", f"{known.name} is away: since {degraded} objects are acknowledged without it", _HINT
        )
    severity, line = judged(known, at_archive(subject.settings, subject.database, known), _absent(subject, known))
    return Result("standby", severity, line, "" if severity == "ok" else _HINT)


def judged(known: Standby, found: AtArchive, absent: str) -> tuple[Severity, str]:
    """What is to be said of a standby. absent: why a volume of it is not here; empty if all are."""
    objects, log = found.objects, found.log
    more = "" if objects.is_counted else " or more"
    line = f"{known.name}: has all" if not objects.objects else f"{known.name}: {objects.objects}{more} objects wait"
    oldest_s = objects.oldest_s or 0.0
    severity: Severity = "critical" if oldest_s > TOO_LATE_S else "warning" if oldest_s > LATE_S else "ok"
    if log is None or log.slot == "lost":
        return "critical", f"{line}; the log that it lacks is kept no more: on it, `pacs standby follow` copies anew"
    if absent:
        return max(severity, "warning", key=ORDER.index), f"{line}; it is away. {absent}"
    if not log.is_streaming:
        kept = f"{log.kept_bytes >> 20} MiB of the log are kept for it"
        return max(severity, "warning", key=ORDER.index), f"{line}; its database does not follow, {kept}"
    if (log.behind_bytes or 0) > LATE_BYTES:
        severity = max(severity, "warning", key=ORDER.index)
    if objects.last_error:
        severity = max(severity, "warning", key=ORDER.index)
        line = f"{line}. {objects.last_error}"
    return severity, f"{line}; its database is {(log.behind_bytes or 0) >> 10} KiB behind"


def run_at_standby(settings: Settings) -> Result:
    """Look at this node, which is a standby: nothing else of it is at work."""
    try:
        severity, line = judged_at_standby(at_standby(settings))
    except PacsError as error:
        severity, line = "critical", str(error)
    return Result("standby", severity, line, "" if severity == "ok" else _HINT)


def judged_at_standby(found: AtStandby) -> tuple[Severity, str]:
    """What is to be said by a standby of itself."""
    if found.step != "follows" or found.log is None:
        return "critical", "this node is a standby, and the archive's database has not come over whole"
    if not found.log.is_streaming:
        return "critical", "this node is a standby, and the archive's log does not come"
    if found.objects is None:
        return "warning", "this node is a standby; it cannot be told yet which objects it lacks"
    more = "" if found.objects.is_counted else " or more"
    line = "has all" if not found.objects.objects else f"lacks {found.objects.objects}{more} objects"
    oldest_s = found.objects.oldest_s or 0.0
    severity: Severity = "critical" if oldest_s > TOO_LATE_S else "warning" if oldest_s > LATE_S else "ok"
    return severity, f"this node is a standby, follows and {line}"


def _absent(subject: Subject, known: Standby) -> str:
    return " ".join(str(subject.volumes.absent[each]) for each in known.volume_ids if each in subject.volumes.absent)
