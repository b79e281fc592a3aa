"""The table of all checks, for docs/reference/checks.md."""

from __future__ import annotations

import sys

from pacs.checks.registry import CHECKS, GROUND
from pacs.model.alerts import WARNINGS


def table() -> str:
    """The checks as Markdown: the question of each is the first line of its module's docstring."""
    lines = ["| check | question | needs the database | a warning is told of |", "|---|---|---|---|"]
    for name in CHECKS:
        module = sys.modules[f"pacs.checks.{name}"]
        question = " ".join((module.__doc__ or "").partition("\n\n")[0].split())
        needs, told = "no" if name in GROUND else "yes", "yes" if name in WARNINGS else "no"
        lines.append(f"| [{name}](../operate/alerts.md#{name}) | {question} | {needs} | {told} |")
    return "\n".join(lines) + "\n"
