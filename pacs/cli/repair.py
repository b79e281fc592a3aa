"""`pacs repair`: copies that are missing or bad, and making them anew from others."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pacs import clock
from pacs.archive.repair import Repair
from pacs.cli.context import data_of
from pacs.cli.instance import open_database, open_instance
from pacs.cli.priority import giving_way
from pacs.cli.table import print_table
from pacs.errors import DigestMismatch
from pacs.index.damage import copies_out_of_service, damage_counts
from pacs.index.database import Row
from pacs.index.runs import record_run
from pacs.settings import load

repair = typer.Typer(no_args_is_help=True, help="Copies that are missing or bad.")

LISTED = 1000
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@repair.command("run")
def repair_run(context: typer.Context, as_json: AsJson = False) -> None:
    """Repair now, without waiting for the worker. Ends with 10 if something cannot be repaired."""
    started = clock.now()
    with giving_way(), open_instance(data_of(context)) as instance:
        limit = instance.settings.scrub_rate_mb_s * 1e6 or None
        work = Repair(instance.database, instance.volumes.by_id, limit)
        done = work.run(at_once=True)
        record_run(instance.database, "repair", started, done.waiting == 0, asdict(done))
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        typer.echo(
            f"{done.repaired} copies repaired, {done.found_well} found well again, {done.quarantined} files put aside, "
            f"{done.waiting} wait."
        )
    if done.waiting:
        raise DigestMismatch("Not all can be repaired: `pacs repair list` says why, and what to send again.")


@repair.command("list")
def repair_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = LISTED,
    as_json: AsJson = False,
) -> None:
    """Show the copies that are missing or bad: of which study, who sent it, and why they are not repaired yet."""
    with open_database(load(data_of(context))) as database:
        print_damage(copies_out_of_service(database, limit), as_json)
        count = damage_counts(database)["out_of_service"]
    if count > limit and not as_json:
        typer.echo(f"{limit} of {count}: see the others with --limit.")


def print_damage(rows: list[Row], as_json: bool) -> None:
    """Print copies that are out of service."""
    if as_json:
        typer.echo(json.dumps(rows, default=str))
        return
    print_table(
        ("state", "found", "volume", "other copy", "study", "sent by", "tries", "next", "why not yet", "file"),
        [
            (
                row["state"], f"{row['found_at']:%Y-%m-%d %H:%M}" if row["found_at"] else "", row["volume"],
                "yes" if row["has_other"] else "none: send again", row["study_instance_uid"], row["calling_ae"] or "",
                str(row["tries"] or 0), f"{row['next_try_at']:%Y-%m-%d %H:%M}" if row["next_try_at"] else "now",
                row["last_error"] or "", row["path"],
            )
            for row in rows
        ],
    )  # fmt: skip
