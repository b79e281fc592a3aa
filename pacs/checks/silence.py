"""Has a device that sends gone silent? Each is judged by its own rhythm (pacs/model/rhythm.py)."""

from __future__ import annotations

from pacs import clock
from pacs.checks.check import Figure, Result, Subject
from pacs.index.devices import list_devices
from pacs.index.growth import sending
from pacs.model.rhythm import judge, slot_of

#: A device that has sent nothing for longer is not missed any more [slots]: half a year.
_FORGOTTEN = 26 * 56
_NAMED_MAX = 10


def run(subject: Subject) -> Result:
    """Look at each known device that ever sent."""
    now = clock.now()
    sent = sending(subject.database, slot_of(now) - _FORGOTTEN)
    judged = [
        (device.name, found)
        for device in list_devices(subject.database)
        if (found := judge([slot for title in device.ae_titles for slot in sent.get(title, [])], now)) is not None
    ]
    silent = [(name, found.last_at) for name, found in judged if found.is_silent]
    figures = (Figure("devices", len(judged)), Figure("silent_devices", len(silent), 1))
    if not silent:
        said = f"{len(judged)} devices send as they use to" if judged else "no known device has sent yet"
        return Result("silence", "ok", said, "", figures)
    named = ", ".join(f"{name} (since {at:%a %d %b %H:%M} UTC)" for name, at in silent[:_NAMED_MAX])
    more = f" and {len(silent) - _NAMED_MAX} more" if len(silent) > _NAMED_MAX else ""
    return Result(
        "silence", "warning", f"gone silent: {named}{more}",
        "Is it on, does `pacs device echo NAME` reach it, does its queue hold images? One that is no more: "
        "`pacs device remove NAME`.", figures,
    )  # fmt: skip
