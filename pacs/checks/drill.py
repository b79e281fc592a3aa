"""When was it last proven that a restore works?"""

from __future__ import annotations

from datetime import timedelta

from pacs import clock
from pacs.checks.check import Result, Subject
from pacs.index.runs import newest_run, newest_success
from pacs.index.volumes import REPOSITORY_TIER, list_volumes
from pacs.model.drill_outcome import words_of
from pacs.model.restore_progress import format_duration

#: A drill runs each night, at some time within an hour.
LATE = timedelta(hours=27)

_RUN = "Look at `journalctl -u pacs-drill`; to try again: `sudo pacs drill run` (docs/operate/drill.md)."


def run(subject: Subject) -> Result:
    """Look at the last drill, and at the last one that proved something."""
    if not any(volume.tier == REPOSITORY_TIER for volume in list_volumes(subject.database)):
        return Result(
            "drill", "warning", "no restore can be proven: there is no backup repository",
            "Add one: `pacs backup repository add` (docs/operate/backup.md).",
        )  # fmt: skip
    last, proven = newest_run(subject.database, "drill"), newest_success(subject.database, "drill")
    if last is None:
        return Result("drill", "warning", "no restore was proven yet: it is tried every night", _RUN)
    now = clock.now()
    since = "never" if proven is None else f"{format_duration((now - proven['finished_at']).total_seconds())} ago"
    if not last["succeeded"]:
        return Result("drill", "critical", f"{_why(last['result'])} Last proven restore: {since}.", _RUN)
    assert proven is not None
    if now - proven["finished_at"] > LATE:
        return Result("drill", "critical", f"Last proven restore: {since}; none was tried since", _RUN)
    return Result("drill", "ok", f"Last proven restore: {since}, {words_of(proven['result'])}")


def _why(result: dict[str, object]) -> str:
    if result.get("error"):
        return f"the last drill could not be done: {result['error']}"
    problems = result.get("problems")
    first = problems[0] if isinstance(problems, list) and problems else f"{words_of(result)}."
    return f"the last drill found faults: {first}"
