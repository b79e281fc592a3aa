"""Is the firewall the one that settings and tables want?"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

from pacs import clock
from pacs.checks.check import Ground, Result

#: What the firewall's last application left (pacs/machine/firewall.py); only an appliance has it.
TOLD = Path("/run/pacs-machine/firewall.json")
#: It is applied every two minutes.
LATE = timedelta(minutes=15)
#: How long a database may be away, or a name server silent, before it is told of.
PATIENCE = timedelta(minutes=5)


def run(_ground: Ground) -> Result:
    """Look at what the last application left."""
    return judge(TOLD)


def judge(told: Path) -> Result:
    """What is to be said of it."""
    try:
        found = json.loads(told.read_text("utf-8"))
        at, problems = datetime.fromisoformat(found["at"]), [str(each) for each in found["problems"]]
        since = datetime.fromisoformat(found["problems_since"]) if problems else at
    except FileNotFoundError:
        return Result("firewall", "ok", "none of ours is here")
    except (OSError, ValueError, KeyError, TypeError):
        return Result("firewall", "warning", "it cannot be told what is in force", "`pacs machine firewall apply`.")
    if clock.now() - at > LATE:
        return Result(
            "firewall", "warning", f"it was not looked after since {at:%d %b %H:%M} UTC",
            "`systemctl status pacs-firewall.timer pacs-firewall.service` says why.",
        )  # fmt: skip
    if problems and clock.now() - since > PATIENCE:
        return Result("firewall", "warning", " ".join(problems), "docs/operate/firewall.md.")
    return Result("firewall", "ok", "closed but for what is set up")
