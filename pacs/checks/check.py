"""What a health check is, and how all of them run: for the screen, `pacs check`, the web page.

Each check is a module of this package with `run(subject) -> Result`. A check that itself fails is critical: not to
know is not to be well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from pacs.archive.volumes import Volumes
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.settings import Settings

Severity = Literal["ok", "warning", "critical"]
ORDER: tuple[Severity, ...] = ("ok", "warning", "critical")


@dataclass(frozen=True)
class Result:
    """A check's outcome: one line for a person, and what to do about it (empty if nothing is)."""

    name: str
    severity: Severity
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Subject:
    """What the checks look at."""

    settings: Settings
    database: Database
    volumes: Volumes


Check = Callable[[Subject], Result]


def run_all(subject: Subject, checks: Mapping[str, Check]) -> list[Result]:
    """Run every check; return the results in the checks' order.

    They run side by side: when the database is gone each of them waits for it, and who asked must not wait for all.
    """
    with ThreadPoolExecutor(max_workers=len(checks) or 1, thread_name_prefix="check") as pool:
        return list(pool.map(lambda item: _run(subject, *item), checks.items()))


def _run(subject: Subject, name: str, check: Check) -> Result:
    try:
        return check(subject)
    except PacsError as error:
        return Result(name, "critical", str(error), "See the message.")
    except Exception as error:  # a check must not take the others down
        return Result(name, "critical", f"The check itself failed: {type(error).__name__}.", "See the log.")


def worst(results: list[Result]) -> Severity:
    """The worst severity of all."""
    return max((result.severity for result in results), key=ORDER.index, default="ok")
