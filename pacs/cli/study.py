"""`pacs study`: the studies in the archive; pinned to their tier, or brought back from tier 3."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pacs.archive import tiering
from pacs.cli.context import data_of
from pacs.cli.instance import open_database, open_instance
from pacs.cli.table import print_table
from pacs.index import tiers as rows
from pacs.index.query import study_list
from pacs.settings import load

study = typer.Typer(no_args_is_help=True, help="The studies in the archive.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Uid = Annotated[str, typer.Argument(metavar="UID", help="Its Study Instance UID, as `pacs study list` shows.")]


@study.command("list")
def study_list_command(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the newest studies."""
    with open_database(load(data_of(context))) as database:
        found = study_list(database, limit)
    if as_json:
        typer.echo(json.dumps(found, default=str))
        return
    print_table(
        ("study", "date", "patient", "id", "series", "objects", "MB", "tiers"),
        [
            (
                row["study_instance_uid"], row["study_date"], row["patient_name"], row["patient_id"],
                str(row["series"]), str(row["objects"]), f"{row['size_bytes'] / 1e6:.1f}", row["tiers"] or "none",
            )
            for row in found
        ],
    )  # fmt: skip


@study.command("pin")
def study_pin(
    context: typer.Context,
    uid: Uid,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks at it later.")] = "",
) -> None:
    """Keep a study on its tier, whatever the rules say."""
    with open_instance(data_of(context)) as instance:
        tiering.pin(instance.database, instance.journal, uid, reason)
    typer.echo(f"Study {uid} stays where it is until `pacs study unpin {uid}`.")


@study.command("unpin")
def study_unpin(context: typer.Context, uid: Uid) -> None:
    """Let a study move again."""
    with open_instance(data_of(context)) as instance:
        tiering.unpin(instance.database, instance.journal, uid)
    typer.echo(f"Study {uid} moves with the rules again.")


@study.command("pins")
def study_pins(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the pinned studies."""
    with open_database(load(data_of(context))) as database:
        found = rows.pins(database)
    if as_json:
        typer.echo(json.dumps(found, default=str))
        return
    print_table(
        ("study", "pinned", "reason"),
        [
            (row["study_instance_uid"], f"{row['pinned_at'].astimezone():%Y-%m-%d %H:%M}", row["reason"])
            for row in found
        ],
    )


@study.command("recall")
def study_recall(context: typer.Context, uid: Uid) -> None:
    """Have a study brought back from tier 3 by the worker. `pacs tier status` shows how far it is."""
    with open_instance(data_of(context)) as instance:
        is_far = tiering.recall(instance.database, uid)
    typer.echo(f"Study {uid} is brought back." if is_far else f"All of study {uid} is at hand.")
