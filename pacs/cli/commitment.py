"""`pacs commitment`: what devices asked the archive to commit to, and which of them wait for an answer."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pacs.cli.context import data_of
from pacs.cli.instance import open_database
from pacs.cli.table import print_table
from pacs.index import commitments
from pacs.settings import load

commitment = typer.Typer(no_args_is_help=True, help="Storage commitment.")


@commitment.command("list")
def commitment_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many; those that wait come first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what devices asked for: which objects are safe, and whether the device knows."""
    with open_database(load(data_of(context))) as database:
        rows = commitments.list_commitments(database, limit)
    if as_json:
        typer.echo(json.dumps(rows, default=str))
        return
    columns = ("key", "calling_ae", "state", "objects", "failed", "attempts", "requested_at", "last_error")
    print_table(
        ("key", "AE title", "state", "objects", "failed", "tries", "asked", "last error"),
        [tuple("" if row[name] is None else str(row[name])[:120] for name in columns) for row in rows],
    )


@commitment.command("retry")
def commitment_retry(context: typer.Context, key: int) -> None:
    """Read the objects again and report at once, also if it was given up."""
    with open_database(load(data_of(context))) as database:
        commitments.retry(database, key)
    typer.echo(f"Commitment {key} is due now.")


@commitment.command("drop")
def commitment_drop(context: typer.Context, key: int) -> None:
    """Forget one: its device gets no answer. The objects stay."""
    with open_database(load(data_of(context))) as database:
        commitments.drop(database, key)
    typer.echo(f"Commitment {key} is forgotten.")
