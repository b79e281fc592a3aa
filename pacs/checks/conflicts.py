"""Have devices sent different objects under one UID?"""

from __future__ import annotations

from pacs.checks.check import Result, Subject
from pacs.index.runs import totals


def run(subject: Subject) -> Result:
    """Count what waits for a person."""
    count = totals(subject.database)["conflicts"]
    if count:
        return Result(
            "conflicts", "warning", f"{count} objects came twice with different content; both are kept",
            "Ask the sending device's maker why it used one UID twice.",
        )  # fmt: skip
    return Result("conflicts", "ok", "none")
