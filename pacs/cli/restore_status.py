"""`pacs restore status|missing`: what comes back behind a restore, and what is to be sent again."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from typing import Annotated

import typer

from pacs.backup import mark
from pacs.checks.restore import progress_of
from pacs.cli.context import data_of
from pacs.cli.instance import open_database
from pacs.cli.table import print_table
from pacs.errors import NotFound
from pacs.index import restores
from pacs.index.database import Row
from pacs.model.restore_progress import format_duration, in_words
from pacs.settings import load

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def restore_status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how far what comes back behind the last restore is, and how long it takes yet."""
    data = data_of(context)
    begun = mark.begun(data)
    if begun is not None:
        typer.echo(f"A restore is not finished; done: {', '.join(begun.done) or 'nothing'}. `pacs restore` goes on.")
        return
    with open_database(load(data)) as database:
        found = restores.newest_restore(database)
    if found is None:
        raise NotFound("Nothing was restored here.")
    progress = progress_of(found)
    if as_json:
        typer.echo(json.dumps({**found, **asdict(progress)}, default=str))
        return
    typer.echo(
        f"Restored from {found['repository']} to {found['restored_to'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC "
        f"(point {found['point']})."
    )
    typer.echo(f"{in_words(progress)}; {found['done_studies']:,} of {found['studies']:,} studies.")
    if found["finished_at"] is not None:
        took = (found["finished_at"] - found["begun_at"]).total_seconds()
        typer.echo(f"All is back, {format_duration(took)} after the archive was searchable.")
    if found["waiting"]:
        typer.echo(f"{found['waiting']} studies wait and are tried again: {found['last_error']}")


def restore_missing(context: typer.Context, as_json: AsJson = False) -> None:
    """List what is to be sent again: studies with objects of which no copy is left, by the device that sent them."""
    with open_database(load(data_of(context))) as database:
        found = restores.studies_to_send_again(database, 1_000_000)
    if as_json:
        typer.echo(json.dumps(found, default=str))
        return
    print_missing(found)
    if not found:
        typer.echo("Nothing is missing.")


def print_missing(rows: list[Row]) -> None:
    """Print studies that are to be sent again, by who sent them."""
    print_table(
        ("device", "AE title", "study", "date", "modalities", "objects", "arrived (UTC)"),
        [
            (
                row["device"] or "", row["calling_ae"] or "unknown", row["study_instance_uid"], row["study_date"],
                " ".join(row["modalities"]), str(row["objects"]),
                f"{row['arrived_at'].astimezone(UTC):%Y-%m-%d %H:%M}",
            )
            for row in rows
        ],
    )  # fmt: skip
