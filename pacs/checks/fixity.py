"""Is every copy read and compared with its digest in time?"""

from __future__ import annotations

from datetime import timedelta

from pacs import clock
from pacs.archive.fixity import fixity
from pacs.checks.check import Result, Subject
from pacs.index.fixity import first_copy_at
from pacs.index.runs import newest_run

#: The timer runs every night; a machine may be off for a weekend.
LATE = timedelta(days=3)
_LOOK = "See `systemctl status pacs-scrub`, and `pacs scrub status`."


def run(subject: Subject) -> Result:
    """Look at the last run of the scrub, and at what is overdue."""
    period = timedelta(days=subject.settings.scrub_period_days)
    found = fixity(subject.database, subject.volumes, period)
    last = found.last_run
    if last is None:
        first, rebuilt = first_copy_at(subject.database), newest_run(subject.database, "rebuild")
        if first is None or clock.now() - (rebuilt["finished_at"] if rebuilt else first) < LATE:
            return Result("fixity", "ok", f"nothing is due yet: the {'index' if rebuilt else 'archive'} is young")
        return Result("fixity", "warning", "the scrub never ran", "It runs every night; now: `pacs scrub run`.")
    if found.overdue_copies:
        late = ", ".join(f"{each.name} ({each.period_days:g} days)" for each in found.volumes if each.overdue_copies)
        said = f"{found.overdue_copies} copies were not read in their time: on {late}"
        return Result("fixity", "warning", said, f"{_LOOK} Is scrub_rate_mb_s high enough?")
    result = last["result"]
    assert isinstance(result, dict)
    if result.get("failed"):
        return Result("fixity", "warning", f"not all could be read: {'; '.join(result['failed'])}", _LOOK)
    finished_at = last["finished_at"]
    age = clock.now() - finished_at  # type: ignore[operator]
    if age > LATE and not found.is_running:
        return Result("fixity", "warning", f"the scrub last ran {age.days} days ago", _LOOK)
    since = f"every copy was read since {found.since:%Y-%m-%d}" if found.since else "there is no copy"
    own = "".join(f"; {each.name} every {each.period_days:g} days" for each in found.volumes if each.is_own_period)
    return Result("fixity", "ok", since + own)
