"""Do the mails that tell of all others go out?"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from pacs import clock
from pacs.checks.check import Result, Subject

#: A mail server may be away for so long before it is told of.
LATE = timedelta(hours=1)


def run(subject: Subject) -> Result:
    """Look at how the last sending went (jobs/mail_spool.py). Nobody has to want mails."""
    data = subject.settings.data
    if not (data / "config" / "mail.toml").exists():
        return Result("mail", "ok", "none are sent: `pacs mail set` says to whom")
    try:
        state = json.loads((data / "mail" / "state.json").read_text("utf-8"))
        since = datetime.fromisoformat(state["failed_since"]) if state.get("failed_since") else None
    except FileNotFoundError:
        return Result("mail", "ok", "none was sent yet")
    except (OSError, ValueError, KeyError):
        return Result("mail", "warning", "it cannot be told whether they go out", "`pacs mail show`.")
    if since is not None and clock.now() - since > LATE:
        return Result(
            "mail", "warning", f"none go out since {since:%d %b %H:%M} UTC: {state['error']}",
            "They wait, and go when it takes them. `pacs mail test` tries it (docs/operate/mail.md).",
        )  # fmt: skip
    return Result("mail", "ok", "they go out")
