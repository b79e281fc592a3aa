"""Tables on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows under a header; on a terminal folded to its width, for a pipe a line each."""
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))  # what a peer sent is no markup
    console = Console()
    if not console.is_terminal:  # for a pipe, nothing is cut off
        console = Console(width=1000)
    console.print(table)


def print_facts(shown: Mapping[str, Any], as_json: bool = False) -> None:
    """Print what is known of one thing, a line each; of a value that has parts a line a part."""
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for key, value in shown.items():
        for inner, each in value.items() if isinstance(value, dict) else [("", value)]:
            typer.echo(f"{' '.join((key, inner)).replace('_', ' ').strip():28} {'-' if each in (None, '') else each}")
