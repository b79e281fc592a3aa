"""`pacs check`: is all well?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pacs import settings as settings_table
from pacs.checks import nagios
from pacs.checks.check import Ground, Result, Subject, worst
from pacs.checks.metrics import text_of
from pacs.checks.registry import look, look_without
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.errors import NotFound, PacsError

#: A database that takes longer for a statement hangs, and is told of [s].
_PATIENCE_S = 100.0


def check(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Only these checks; else all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_metrics: Annotated[
        bool, typer.Option("--metrics", help="Print the results, and figures, for Prometheus; ends with 0.")
    ] = False,
    as_nagios: Annotated[bool, typer.Option("--nagios", help="Print what Nagios and its kin read.")] = False,
) -> None:
    """Run every health check: one line each. Ends with 0 if all is well, 1 with a warning, 2 with worse, 3 if it cannot
    be told."""
    results, figures = _looked(data_of(context), as_metrics, names or ())
    if as_metrics:
        typer.echo(figures, nl=False)
        return
    if as_json:
        typer.echo(json.dumps([result.as_json() for result in results]))
    elif as_nagios:
        typer.echo(nagios.render(results), nl=False)
    else:
        _print(results)
    raise typer.Exit(nagios.EXIT_CODES[worst(results)])


def _print(results: Sequence[Result]) -> None:
    """A line each; those that could not be made share one."""
    for result in results:
        if result.severity != "unknown":
            hint = f"  → {result.hint} ({result.page})" if result.severity != "ok" else ""
            typer.echo(f"{result.severity.upper():9}{result.name:13}{result.message}{hint}")
    for message, hint in dict.fromkeys((each.message, each.hint) for each in results if each.severity == "unknown"):
        names = ", ".join(each.name for each in results if (each.message, each.hint) == (message, hint))
        typer.echo(f"UNKNOWN  {names}: {message}  → {hint}")


def results_of(data: Path) -> list[Result]:
    """What every check says now. An instance that cannot be opened is critical, and what needs none is looked at."""
    return _looked(data)[0]


def _looked(data: Path, as_metrics: bool = False, only: Sequence[str] = ()) -> tuple[list[Result], str]:
    try:
        with open_instance(data, timeout_s=_PATIENCE_S) as instance:
            subject = Subject(instance.settings, instance.database, instance.volumes)
            results = look(subject, only)
            return results, text_of(subject, results) if as_metrics else ""
    except NotFound:
        raise
    except PacsError as error:
        ground, results = _without(data, error, only)
    return results, text_of(ground, results) if as_metrics else ""


def _without(data: Path, error: PacsError, only: Sequence[str]) -> tuple[Ground | None, list[Result]]:
    try:
        ground = Ground(settings_table.load(data)) if data.is_dir() else None
    except PacsError:
        ground = None
    if ground is None:
        return None, [Result("instance", "critical", str(error), "See the message.")]
    return ground, look_without(ground, error, only)
