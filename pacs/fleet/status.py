"""How all appliances are, asked at once; one that cannot be reached holds up no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pacs.errors import PacsError
from pacs.fleet.host_keys import Ask, UnknownHostKey
from pacs.fleet.inventory import Appliance
from pacs.fleet.node import Node, NodeFailed, Unreachable, plain

AT_ONCE_MAX = 16
Severity = Literal["ok", "warning", "critical", "unreachable"]
_ORDER: tuple[Severity, ...] = ("ok", "warning", "critical", "unreachable")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Status:
    """How an appliance is: its version, what `pacs check` said (name, severity, message, hint), or why it is not
    known."""

    name: str
    severity: Severity
    version: str = ""
    checks: list[dict[str, str]] = field(default_factory=list)
    error: str = ""

    def message(self, check: str) -> str:
        """What a check said; empty if it is not among them."""
        return next((each["message"] for each in self.checks if each["name"] == check), "")

    @property
    def problems(self) -> list[dict[str, str]]:
        """The checks that are not well, the worst first."""
        found = [each for each in self.checks if each["severity"] != "ok"]
        return sorted(found, key=lambda each: each["severity"] != "critical")


def status_of(node: Node) -> Status:
    """Ask an appliance. What goes wrong is in the answer."""
    name = node.appliance.name
    try:
        version = node.require("version").decode("utf-8", "replace").strip()
        checks = _checks(node.json("check", "--json", accept=(0, 1, 2)))
    except (Unreachable, UnknownHostKey) as error:
        return Status(name, "unreachable", error=str(error))
    except PacsError as error:
        return Status(name, "critical", error=str(error))
    worst: Severity = "ok"
    for each in checks:
        found: Severity = "warning" if each["severity"] == "warning" else "critical"
        worst = max(worst, "ok" if each["severity"] == "ok" else found, key=_ORDER.index)
    return Status(name, worst, plain(version), checks)


def worst_of(found: Iterable[Status]) -> Severity:
    """The worst of all."""
    return max((each.severity for each in found), key=_ORDER.index, default="ok")


def on_each(
    appliances: list[Appliance], work: Callable[[Node], _T], ask: Ask | None, at_once: int = AT_ONCE_MAX
) -> list[_T]:
    """Do something with every appliance, so many at once; the results in their order."""

    def with_node(appliance: Appliance) -> _T:
        with Node(appliance, ask) as node:
            return work(node)

    with ThreadPoolExecutor(max_workers=max(1, min(at_once, len(appliances))), thread_name_prefix="fleet") as pool:
        return list(pool.map(with_node, appliances))


def _checks(found: Any) -> list[dict[str, str]]:
    """The checks as another version may tell them: only what we know of one, as texts for a terminal."""
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise NodeFailed("`pacs check --json` there says something else than checks. Is it another version?")
    return [{key: plain(str(each.get(key, ""))) for key in ("name", "severity", "message", "hint")} for each in found]
