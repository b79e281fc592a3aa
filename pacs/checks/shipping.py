"""Is every object in the repositories, or on its way there? How far is each behind, and is it there at all?"""

from __future__ import annotations

from dataclasses import replace

from pacs.backup.repositories import Repository, repositories
from pacs.backup.shipping import Lag, lag_of
from pacs.checks.check import ORDER, Result, Severity, Subject

#: A repository that is written to at any time is behind by less than the first [s]; beyond the second a person looks.
LATE_S, TOO_LATE_S = 3 * 60, 30 * 60
#: ... and one that has windows: it has until the next one ends, and the one after that.
_WINDOW_LATE_S, _WINDOW_TOO_LATE_S = 26 * 3600, 50 * 3600
_HINT = "`pacs backup repository list` and `show` say more; docs/operate/backup.md."


def run(subject: Subject) -> Result:
    """Look at each repository. That there is none at all, the check `backup` says."""
    known = repositories(subject.settings.data)
    if not known:
        return Result("shipping", "ok", "no repository to ship to")
    found = [judged(each, _lag_of(subject, each)) for each in known]
    severity = max((severity for severity, _line in found), key=ORDER.index)
    return Result("shipping", severity, "; ".join(line for _severity, line in found), "" if severity == "ok" else _HINT)


def _lag_of(subject: Subject, repository: Repository) -> Lag:
    lag, reason = lag_of(subject.database, repository.volume_id), subject.volumes.absent.get(repository.volume_id)
    return replace(lag, last_error=str(reason)) if reason else lag


def judged(repository: Repository, lag: Lag) -> tuple[Severity, str]:
    """What is to be said of a repository that is so far behind."""
    late_s, too_late_s = (_WINDOW_LATE_S, _WINDOW_TOO_LATE_S) if repository.windows else (LATE_S, TOO_LATE_S)
    oldest_s, more = lag.oldest_s or 0.0, "" if lag.is_counted else " or more"
    line = f"{repository.name}: nothing waits"
    if lag.objects:
        line = f"{repository.name}: {lag.objects}{more} objects wait, the oldest for {_minutes(oldest_s)}"
    severity: Severity = "critical" if oldest_s > too_late_s else "warning" if oldest_s > late_s else "ok"
    if lag.absent_s is not None:
        severity = "critical" if max(lag.absent_s, oldest_s) > TOO_LATE_S else "warning"
        return severity, f"{line}; it has been away for {_minutes(lag.absent_s)}. {lag.last_error}".strip()
    if lag.last_error:
        return max(severity, "warning", key=ORDER.index), f"{line}. {lag.last_error}"
    return severity, line


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.0f} hours"
