"""`pacs check`: is all well?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pacs.backup.standby_files import StandbyFiles
from pacs.checks.check import Result, Subject, run_all, worst
from pacs.checks.metrics import metrics, render
from pacs.checks.registry import CHECKS
from pacs.checks.standby import run_at_standby
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.errors import PacsError
from pacs.settings import load

EXIT_CODES = {"ok": 0, "warning": 1, "critical": 2}  # as Nagios' plug-ins have them


def check(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_metrics: Annotated[
        bool, typer.Option("--metrics", help="Print the results, and figures, for Prometheus; ends with 0.")
    ] = False,
) -> None:
    """Run every health check: one line each. Ends with 0 if all is well, 1 with a warning, 2 with worse."""
    results, figures = _looked(data_of(context), as_metrics)
    if as_metrics:
        typer.echo(figures, nl=False)
        return
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results]))
    else:
        for result in results:
            hint = f"  → {result.hint}" if result.hint else ""
            typer.echo(f"{result.severity.upper():9}{result.name:12}{result.message}{hint}")
    raise typer.Exit(EXIT_CODES[worst(results)])


def results_of(data: Path) -> list[Result]:
    """What every check says now. An instance that cannot be opened has one that is critical."""
    return _looked(data)[0]


def _looked(data: Path, as_metrics: bool = False) -> tuple[list[Result], str]:
    if StandbyFiles(data).following() is not None:
        results = [run_at_standby(load(data))]
        return results, render(metrics(None, results)) if as_metrics else ""
    try:
        with open_instance(data) as instance:
            subject = Subject(instance.settings, instance.database, instance.volumes)
            results = run_all(subject, CHECKS)
            return results, render(metrics(subject, results)) if as_metrics else ""
    except PacsError as error:
        results = [Result("instance", "critical", str(error), "See the message.")]
    return results, render(metrics(None, results)) if as_metrics else ""
