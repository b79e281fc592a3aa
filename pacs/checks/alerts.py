"""Does somebody get the alerts that tell of all others? Nobody has to want any."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.checks.check import Figure, Ground, Result

#: A receiver may be away for so long before it is told of.
LATE = timedelta(hours=1)
#: The timer looks every five minutes.
NOT_LOOKED = timedelta(minutes=45)


def run(ground: Ground) -> Result:
    """Look at how the last sending went, each way (jobs/alert_spool.py), and whether anything looks at all."""
    data = ground.settings.data
    if not any((data / "config" / name).exists() for name in ("mail.toml", "alerts.toml")):
        return Result("alerts", "ok", "none are sent: `pacs mail set` or `pacs alert webhook set` says to whom")
    try:
        state = _state((data / "alerts", ground.settings.runtime_folder / "alerts"))
        if state is None:
            return Result("alerts", "ok", "none was sent yet")
        failing = {
            name: (datetime.fromisoformat(way["failed_since"]), str(way["error"]))
            for name, way in state["ways"].items() if way.get("failed_since")
        }  # fmt: skip
        looked = datetime.fromisoformat(state["looked_at"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Result("alerts", "warning", "it cannot be told whether they go out", "`pacs alert show`.")
    figures = (Figure("ways_failing", len(failing)),)
    late = {name: each for name, each in failing.items() if clock.now() - each[0] > LATE}
    if late:
        said = "; ".join(
            f"by {name} none go out since {since:%d %b %H:%M} UTC: {why}" for name, (since, why) in late.items()
        )
        return Result(
            "alerts", "warning", said, "They wait, and go when they are taken. `pacs alert test` tries it.", figures
        )
    if clock.now() - looked > NOT_LOOKED and looked.year > 1:
        said = f"nobody has looked since {looked:%d %b %H:%M} UTC"
        return Result("alerts", "warning", said, "See `systemctl status pacs-alert.timer`.", figures)
    return Result("alerts", "ok", f"they go out by {', '.join(state['ways']) or 'nobody yet'}", "", figures)


def _state(folders: tuple[Path, ...]) -> dict[str, Any] | None:
    """The newest of the states that are written down."""
    found: list[dict[str, Any]] = []
    for folder in folders:
        try:
            found.append(json.loads((folder / "state.json").read_text("utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return max(found, key=lambda each: str(each["looked_at"]), default=None)
