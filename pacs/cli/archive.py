"""`pacs study|reconcile|tier`: what is in the archive, and where."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pacs import clock
from pacs.archive.move import Mover
from pacs.archive.reconcile import reconcile as run_reconcile
from pacs.cli.context import data_of
from pacs.cli.instance import open_database, open_instance
from pacs.cli.table import print_table
from pacs.errors import DigestMismatch, UsageError
from pacs.index.query import study_list
from pacs.index.runs import record_run
from pacs.settings import load

study = typer.Typer(no_args_is_help=True, help="The studies in the archive.")
reconcile = typer.Typer(no_args_is_help=True, help="Files against rows.")
tier = typer.Typer(no_args_is_help=True, help="The storage tiers.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@study.command("list")
def study_list_command(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the newest studies."""
    with open_database(load(data_of(context))) as database:
        rows = study_list(database, limit)
    if as_json:
        typer.echo(json.dumps(rows, default=str))
        return
    print_table(
        ("study", "date", "patient", "id", "series", "objects", "MB", "tiers"),
        [
            (
                row["study_instance_uid"], row["study_date"], row["patient_name"], row["patient_id"],
                str(row["series"]), str(row["objects"]), f"{row['size_bytes'] / 1e6:.1f}", row["tiers"] or "none",
            )
            for row in rows
        ],
    )  # fmt: skip


@reconcile.command("run")
def reconcile_run(context: typer.Context, as_json: AsJson = False) -> None:
    """Compare every file with every row and mend what can be. Ends with 10 if a file is missing or damaged."""
    started = clock.now()
    with open_instance(data_of(context)) as instance:
        findings = run_reconcile(instance.database, instance.volumes.all(), instance.settings.orphan_age_s)
        record_run(instance.database, "reconcile", started, findings.is_clean, asdict(findings))
    if as_json:
        typer.echo(json.dumps(asdict(findings)))
    else:
        for name, count in asdict(findings).items():
            typer.echo(f"{name.replace('_', ' '):20} {count}")
    if not findings.is_clean:
        raise DigestMismatch("Files are missing or damaged: see the log, and look at the volumes' disks.")


@tier.command("move")
def tier_move(
    context: typer.Context,
    low: Annotated[float, typer.Option(help="Move until tier 1 is this full [percent].")] = 0.0,
) -> None:
    """Move settled studies to tier 2 now, oldest first, without waiting for the high mark."""
    with open_instance(data_of(context)) as instance:
        if not instance.volumes.tier(2):
            raise UsageError("There is no tier 2 here.")
        for source in instance.volumes.tier(1):
            done = Mover(instance.database, source, instance.volumes.place(2, 0), instance.settings.settle_s).run(
                0, low
            )
            typer.echo(
                f"{source.location}: {done.studies} studies, {done.objects} objects, {done.size_bytes / 1e6:.1f} MB "
                f"moved; {done.failed} failed."
            )
