"""What an alert is, and what each way that alerts go (mail, webhook, syslog) has in common."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pacs import __version__
from pacs.checks.check import ORDER, PAGE, Severity
from pacs.errors import PacsError
from pacs.model.alerts import Matter

Kind = Literal["alert", "weekly", "test", "alive"]


class AlertFailed(PacsError):
    """A receiver of alerts did not take one. It is tried again; see `pacs alert show`."""

    exit_code = 4


class AlertRefused(AlertFailed):
    """A receiver of alerts refused one, and may take others."""


@dataclass(frozen=True)
class Alert:
    """What is to be told at once. matters: what is wrong or over; of a weekly summary every check."""

    kind: Kind
    at: datetime
    matters: tuple[Matter, ...] = ()
    #: Of a weekly summary: when a restore was last proven.
    proven: str = ""

    @property
    def wrong(self) -> list[Matter]:
        """What is not well."""
        return [each for each in self.matters if not each.is_over and each.severity != "ok"]

    @property
    def over(self) -> list[Matter]:
        """What is well again."""
        return [each for each in self.matters if each.is_over]

    @property
    def severity(self) -> Severity:
        """The worst of all."""
        return max((each.severity for each in self.wrong), key=ORDER.index, default="ok")

    @property
    def title(self) -> str:
        """One line of what it says."""
        if self.kind == "test":
            return "test"
        if self.kind == "alive":
            return "is alive"
        if self.kind == "weekly":
            return f"this week: {f'{len(self.wrong)} checks not well' if self.wrong else 'all is well'}"
        names = ", ".join(each.name for each in self.wrong or self.over)
        return f"{self.severity.upper()}: {names}" if self.wrong else f"well again: {names}"

    @property
    def text(self) -> str:
        """All of it, for a person."""
        end = (
            f"\nSent by the appliance {host()}, version {__version__}. What is wrong is told again until it is over.\n"
        )
        if self.kind == "test":
            return f"Alerts of this appliance arrive. What is wrong with it will be told here.\n{end}"
        if self.kind == "alive":
            return f"This appliance lives, and looks at itself. This comes once a day: if it does not, look.\n{end}"
        if self.kind == "weekly":
            lines = [f"{self.proven}.\n"]
            lines += [f"{each.severity.upper():9}{each.name:13}{each.message}" for each in self.matters]
            return "\n".join(lines) + f"\n{end}"
        lines = [
            f"{each.severity.upper()} {each.name}: {each.message}\n    {each.hint}\n    See {PAGE}#{each.name}\n"
            for each in self.wrong
        ]
        lines += [f"Well again: {each.name}: {each.message}\n" for each in self.over]
        return "\n".join(lines) + end


class Way(Protocol):
    """A way that alerts go. What it makes of an alert is written down first, and sent as it is, until it is taken."""

    @property
    def name(self) -> str:
        """One word: mail, webhook, syslog."""

    @property
    def acknowledges(self) -> bool:
        """Whether one that was delivered was surely taken, even if the connection then fails."""

    def compose(self, alert: Alert) -> bytes:
        """An alert as it will be sent."""

    def opened(self) -> AbstractContextManager[Callable[[bytes], None]]:
        """The receiver, ready: what sends one alert, and raises AlertRefused. Raise AlertFailed if it is away."""


def host() -> str:
    """This machine's name."""
    return socket.gethostname()
