"""Do studies move as the rules say, and come back when they are asked for?"""

from __future__ import annotations

from pacs.checks.check import Result, Subject
from pacs.index.recalls import failed_lately
from pacs.index.runs import newest_run

_DAYS = 2


def run(subject: Subject) -> Result:
    """Look at recalls that were given up lately, and at what went wrong when studies last moved."""
    failed = failed_lately(subject.database, _DAYS)
    if failed:
        return Result(
            "tiers", "warning", f"{len(failed)} studies could not be recalled; the last: {failed[0]['last_error']}",
            "`pacs tier status` shows them (docs/operate/tiers.md); ask again when it is mended.",
        )  # fmt: skip
    last = newest_run(subject.database, "tier")
    if last is not None and not last["succeeded"]:
        errors = last["result"].get("errors") or [
            f"{last['result']['failed']} objects stay where they are: see the log"
        ]
        return Result("tiers", "warning", str(errors[0]), "`pacs tier status` shows what moves and what does not.")
    return Result("tiers", "ok", "studies move as the rules say")
