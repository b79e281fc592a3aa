"""Tables on the terminal."""

from __future__ import annotations

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
