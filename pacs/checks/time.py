"""Is the clock right? Images, the log and the repositories' points are told apart by it. From chrony."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pacs import clock
from pacs.checks.asking import ask
from pacs.checks.check import Figure, Ground, Result

#: From so much on it is told [s]: TLS and Kerberos refuse at minutes, a person sees a wrong order at seconds.
WARNING_S, CRITICAL_S = 0.5, 30.0
#: A clock that nothing has set for so long is on its own.
LATE = timedelta(days=1)
_HINT = "Name a time server that this machine reaches; `chronyc sources` shows those it asks."


def run(_ground: Ground) -> Result:
    """Ask chrony how far the clock is from its servers', and when it last heard of one."""
    answer = ask("chronyc", "-n", "-c", "tracking")
    if answer is None:
        return Result("time", "ok", "not watched: chrony is not installed on this machine")
    succeeded, said = answer
    fields = said.split(",")
    if not succeeded or len(fields) < 14:
        return Result(
            "time", "warning", f"chrony does not answer: {said or 'it said nothing'}",
            "Restart it: `sudo systemctl restart chrony`.",
        )  # fmt: skip
    return judged(fields)


def judged(fields: list[str]) -> Result:
    """What `chronyc -c tracking` says: reference, stratum, when it was heard, the clock's offset [s] … leap."""
    offset_s, drift_ppm = float(fields[4]), float(fields[7])
    heard = datetime.fromtimestamp(float(fields[3]), UTC)
    figures = (
        Figure("offset_seconds", offset_s, WARNING_S, CRITICAL_S),
        Figure("drift_ppm", drift_ppm),
        Figure("stratum", float(fields[2])),
    )
    said = (
        f"{abs(offset_s):.3g} s {'behind' if offset_s > 0 else 'ahead of'} its time server, drifts {drift_ppm:+.1f} ppm"
    )
    if fields[13] == "Not synchronised":
        return Result("time", "warning", "the clock is set by nobody: no time server answers", _HINT, figures)
    if abs(offset_s) >= CRITICAL_S:
        return Result("time", "critical", said, "`sudo chronyc makestep` sets it at once. " + _HINT, figures)
    if clock.now() - heard > LATE:
        return Result("time", "warning", f"no time server answered since {heard:%d %b %H:%M} UTC", _HINT, figures)
    if abs(offset_s) >= WARNING_S:
        return Result("time", "warning", said, _HINT, figures)
    return Result("time", "ok", said, "", figures)
