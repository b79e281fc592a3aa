"""Does the database answer, and is its schema this version's?"""

from __future__ import annotations

from pacs.checks.check import Result, Subject
from pacs.index import database as index


def run(subject: Subject) -> Result:
    """Ask it."""
    index.require_current(subject.database)
    return Result("database", "ok", "answers")
