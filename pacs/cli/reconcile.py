"""`pacs reconcile`: files against rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pacs import clock
from pacs.archive.reconcile import reconcile as run_reconcile
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.cli.priority import giving_way
from pacs.errors import DigestMismatch, VolumeFailed
from pacs.index.runs import record_run
from pacs.storage.lineage import LineageFiles

reconcile = typer.Typer(no_args_is_help=True, help="Files against rows.")


@reconcile.command("run")
def reconcile_run(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Compare every file with every row and mend what can be. Ends with 10 if a file is missing or damaged, with 4 if
    not all could be compared."""
    started = clock.now()
    LineageFiles(data_of(context)).require_settled()
    with giving_way(), open_instance(data_of(context)) as instance:
        findings = run_reconcile(instance.database, instance.volumes.all(), instance.settings.orphan_age_s)
        findings.failed += [str(reason) for reason in instance.volumes.absent.values()]
        record_run(instance.database, "reconcile", started, findings.is_clean, asdict(findings))
    if as_json:
        typer.echo(json.dumps(asdict(findings)))
    else:
        for name, found in asdict(findings).items():
            typer.echo(f"{name.replace('_', ' '):20} {'; '.join(found) if isinstance(found, list) else found}")
    if findings.missing:
        raise DigestMismatch("Files are missing or damaged: `pacs repair list`. Look at the volumes' disks.")
    if not findings.is_clean:
        raise VolumeFailed("Not all could be compared: see above, and the log.")
