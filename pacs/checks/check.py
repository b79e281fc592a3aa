"""What a health check is, and how all of them run: for the screen, `pacs check`, the web page.

Each check is a module of this package with `run(subject) -> Result`. A check that itself fails is critical: not to
know is not to be well. One that needs the database, and the database is gone, is unknown: the check `database` tells of
it, once. Checks of the machine take a Ground, and are made without the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from pacs import clock
from pacs.archive.volumes import Volumes
from pacs.errors import DatabaseUnavailable, PacsError
from pacs.index.database import Database
from pacs.settings import Settings

Severity = Literal["ok", "warning", "unknown", "critical"]
ORDER: tuple[Severity, ...] = ("ok", "warning", "unknown", "critical")
#: No check is waited for any longer [s].
LIMIT_S = 240.0
#: Where each check is explained, and what to do: a heading a check.
PAGE = "docs/operate/alerts.md"


class Figure(NamedTuple):
    """A measured value behind a result. The unit stands last in the name: `offset_seconds`, `used_percent`."""

    name: str
    value: float
    #: From where on it is a warning, and critical; None: it is not judged by one number.
    warning: float | None = None
    critical: float | None = None


@dataclass(frozen=True)
class Result:
    """A check's outcome: one line for a person, and what to do about it (empty if nothing is)."""

    name: str
    severity: Severity
    message: str
    hint: str = ""
    figures: tuple[Figure, ...] = ()

    @property
    def page(self) -> str:
        """Where it is explained."""
        return f"{PAGE}#{self.name}"

    def as_json(self) -> dict[str, object]:
        """For programs: its words, its figures by name, and where it is explained."""
        said = {"name": self.name, "severity": self.severity, "message": self.message, "hint": self.hint}
        return {**said, "page": self.page, "figures": {each.name: each.value for each in self.figures}}


@dataclass(frozen=True)
class Ground:
    """What there is to look at without the database."""

    settings: Settings


@dataclass(frozen=True)
class Subject(Ground):
    """What the checks look at."""

    database: Database
    volumes: Volumes


Check = Callable[[Subject], Result]
GroundCheck = Callable[[Ground], Result]
_Looked = TypeVar("_Looked")


def run_all(
    subject: _Looked, checks: Mapping[str, Callable[[_Looked], Result]], limit_s: float = LIMIT_S
) -> list[Result]:
    """Run every check; return the results in the checks' order.

    They run side by side: when the database is gone each of them waits for it, and who asked must not wait for all. One
    that has not ended after limit_s, as a disk hangs, is critical, and left behind: its thread is a daemon, so that it
    keeps no process from ending.
    """
    found: dict[str, Result] = {}

    def run(name: str, check: Callable[[_Looked], Result]) -> None:
        found[name] = _run(subject, name, check)

    threads = [threading.Thread(target=run, args=item, name=f"check {item[0]}", daemon=True) for item in checks.items()]
    ends = clock.monotonic_s() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - clock.monotonic_s()))
    return [found[name] if name in found else _not_ended(name, limit_s) for name in checks]


def _not_ended(name: str, limit_s: float) -> Result:
    said = f"The check did not end in {limit_s:g} s: what it looks at hangs."
    return Result(name, "critical", said, "Look at the disks and shares: `journalctl -k -p err`.")


def not_looked(name: str, why: str = "database") -> Result:
    """The result of a check that could not be made. why: the check that says why, database or instance."""
    said = "the database does not answer" if why == "database" else "the instance cannot be opened"
    return Result(name, "unknown", f"not looked at: {said}", f"See the check `{why}`.")


def _run(subject: _Looked, name: str, check: Callable[[_Looked], Result]) -> Result:
    try:
        return check(subject)
    except DatabaseUnavailable as error:
        if name != "database":
            return not_looked(name)
        return Result(name, "critical", str(error), "Restart it: `sudo systemctl restart postgresql@17-main`.")
    except PacsError as error:
        return Result(name, "critical", str(error), "See the message.")
    except Exception as error:  # a check must not take the others down
        return Result(name, "critical", f"The check itself failed: {type(error).__name__}.", "See the log.")


def worst(results: list[Result]) -> Severity:
    """The worst severity of all."""
    return max((result.severity for result in results), key=ORDER.index, default="ok")
