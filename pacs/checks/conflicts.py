"""Does anything that came contradict what was here, and wait for a person?"""

from __future__ import annotations

from pacs.checks.check import Result, Subject
from pacs.index.conflicts import KINDS, counts


def run(subject: Subject) -> Result:
    """Count what waits for a person."""
    found = counts(subject.database)
    if found:
        said = ", ".join(f"{count} × {KINDS[kind][0]}" for kind, count in found.items())
        return Result(
            "conflicts", "warning", f"{said}; all is kept",
            "`pacs conflict list`, then `pacs conflict show ID` (docs/operate/conflicts.md).",
        )  # fmt: skip
    return Result("conflicts", "ok", "none")
