"""Are Debian's security updates installed, in the window that was set for them?"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from pacs import clock
from pacs.checks.check import Figure, Ground, Result
from pacs.errors import SettingsError
from pacs.model.update_window import OFF
from pacs.storage import update_state

#: A window a week is expected: two of them missed are told of.
LATE_DAYS = 14
#: What comes with `pacs upgrade` alone: how long until it is told of.
UPGRADE_LATE_DAYS = 45
_UNASKED = timedelta(days=3)
_BUILT = Path("/etc/pacs/built")
_HINT = "`sudo pacs machine update` says what it waits for (docs/operate/updates.md)."


def run(_ground: Ground) -> Result:
    """Look at what the last turn left."""
    return judge(update_state.STATE)


def judge(path: Path) -> Result:
    """What is to be said of it."""
    try:
        known = update_state.read(path)
    except SettingsError as error:
        return Result("updates", "warning", str(error), _HINT)
    if known is None:
        return Result("updates", "ok", "none of ours are here")
    if known.window == OFF:
        of = f"; this system is of {_BUILT.read_text('ascii').strip()[:10]}" if _BUILT.exists() else ""
        return Result("updates", "ok", f"off: they come with `pacs upgrade`{of}")
    now = clock.now()
    ages = {name: now - datetime.fromisoformat(each.since) for name, each in known.pending.items()}
    later = {name: age for name, age in ages.items() if known.pending[name].with_upgrade}
    here = {name: age for name, age in ages.items() if name not in later}
    oldest = max(here.values(), default=timedelta()).days
    figures = (Figure("pending_packages", len(here)), Figure("oldest_days", oldest, warning=LATE_DAYS))

    def said(message: str, hint: str = _HINT) -> Result:
        return Result("updates", "warning", message, hint, figures)

    if known.problem and now - datetime.fromisoformat(known.problem_since) > _UNASKED:
        return said(f"they fail since {known.problem_since[:10]}: {known.problem}")
    if oldest >= LATE_DAYS:
        why = f"; {known.waits_for}" if known.waits_for else ""
        return said(f"{len(here)} wait for {oldest} days ({', '.join(sorted(here)[:5])}){why}")
    if known.restart_since and (now - datetime.fromisoformat(known.restart_since)).days >= LATE_DAYS:
        return said(f"a restart is needed since {known.restart_since[:10]}; {known.waits_for or 'no window came'}")
    if (age := max(later.values(), default=timedelta()).days) >= UPGRADE_LATE_DAYS:
        return said(
            f"{', '.join(sorted(later)[:5])} are {age} days behind, and come with an upgrade alone",
            "Apply a newer upgrade file: docs/operate/upgrade.md.",
        )
    waiting = f"{len(here)} wait for the window" if here else "none is pending"
    return Result("updates", "ok", f"{waiting} ({known.window})", figures=figures)
