"""`pacs device|study|reconcile|journal|tier`: what is in the archive, and who may talk to it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pacs import clock
from pacs.archive import devices
from pacs.archive.move import Mover
from pacs.archive.reconcile import reconcile as run_reconcile
from pacs.cli.context import data_of
from pacs.cli.instance import open_database, open_instance
from pacs.errors import DigestMismatch, UsageError
from pacs.index import devices as device_rows
from pacs.index.devices import Device
from pacs.index.query import study_list
from pacs.index.runs import record_run
from pacs.settings import load
from pacs.storage.journal import Journal

device = typer.Typer(no_args_is_help=True, help="The devices that may talk to the archive.")
study = typer.Typer(no_args_is_help=True, help="The studies in the archive.")
reconcile = typer.Typer(no_args_is_help=True, help="Files against rows.")
tier = typer.Typer(no_args_is_help=True, help="The storage tiers.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@device.command("add")
def device_add(
    context: typer.Context,
    name: str,
    ae_title: Annotated[str, typer.Option(help="Its AE title, 1 to 16 characters.")],
    host: Annotated[str, typer.Option(help="Its address, for C-MOVE.")],
    port: Annotated[int, typer.Option(help="Its DICOM port, for C-MOVE.")],
) -> None:
    """Make a device known: it may store, query and be sent to."""
    data = data_of(context)
    with open_database(load(data)) as database:
        devices.add_device(database, Journal(data), Device(name, ae_title, host, port))
    typer.echo(f"{name}: AE title {ae_title} at {host}:{port} is known now.")


@device.command("list")
def device_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the devices."""
    with open_database(load(data_of(context))) as database:
        found = device_rows.list_devices(database)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
        return
    _print_table(("name", "AE title", "host", "port"), [(d.name, d.ae_title, d.host, str(d.port)) for d in found])


@device.command("remove")
def device_remove(context: typer.Context, name: str) -> None:
    """Forget a device. Its studies stay."""
    data = data_of(context)
    with open_database(load(data)) as database:
        devices.remove_device(database, Journal(data), name)
    typer.echo(f"{name} is no longer known.")


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
    _print_table(
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
        findings = run_reconcile(instance.database, list(instance.by_tier.values()), instance.settings.orphan_age_s)
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
        if 2 not in instance.by_tier:
            raise UsageError("There is no tier 2 here.")
        mover = Mover(instance.database, instance.by_tier[1], instance.by_tier[2], instance.settings.settle_s)
        done = mover.run(0, low)
    typer.echo(
        f"{done.studies} studies, {done.objects} objects, {done.size_bytes / 1e6:.1f} MB moved; {done.failed} failed."
    )


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:  # for a pipe, nothing is cut off
        console = Console(width=1000)
    console.print(table)
