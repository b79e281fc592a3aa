"""`pacs capacity plan|forecast`: what disks are needed, and when those that are there are full."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pacs.cli.context import data_of
from pacs.cli.table import print_table
from pacs.errors import UsageError
from pacs.model.plan import Load, Plan, Terms, make_load, make_plan
from pacs.model.sizes import format_size, parse_size

if TYPE_CHECKING:
    from pacs.archive.forecast import Forecast

capacity = typer.Typer(no_args_is_help=True, help="How large the disks must be, and when they are full.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_BAR = 24
_LOAD = re.compile(r"(?P<name>[A-Z]{2})=(?P<studies>\d+(?:\.\d+)?)x(?P<size>[^x]+?)(?:x(?P<objects>\d+))?", re.ASCII)


@capacity.command("plan")
def plan(
    years: Annotated[float, typer.Option(min=0.1, max=100, help="For how many years.")],
    studies_per_day: Annotated[float | None, typer.Option(min=0, help="Over all days of the week.")] = None,
    mean_size: Annotated[str | None, typer.Option(help="Of a study: 30MB, 1.2GiB.")] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(help="In place of the two above: CT=15x300MB, or CT=15x300MBx600 with the objects of a study."),
    ] = None,
    objects_per_study: Annotated[
        float | None, typer.Option(min=1, help="Else from the size of a usual object.")
    ] = None,
    fast_months: Annotated[float, typer.Option(min=0, help="How long studies stay on tier 1 [months].")] = 3,
    growth: Annotated[float, typer.Option(min=-50, max=200, help="Of the rate [percent a year].")] = 0,
    copies: Annotated[int, typer.Option(min=1, max=5, help="Of each object within the archive.")] = 1,
    compression: Annotated[
        float, typer.Option(min=0.1, max=100, help="By what factor arriving images are smaller than the sizes given.")
    ] = 1,
    points: Annotated[int, typer.Option(min=1, help="Backups of the database that a repository keeps.")] = 14,
    away_days: Annotated[float, typer.Option(min=0, help="How long a repository may be away [days].")] = 3,
    as_json: AsJson = False,
) -> None:
    """Say which disks an archive needs, and how that was reckoned. Needs no instance."""
    loads = _loads(studies_per_day, mean_size, objects_per_study, modality or [])
    terms = Terms(years, growth, copies, compression, fast_months, points, away_days)
    made = make_plan(loads, terms)
    if as_json:
        typer.echo(json.dumps({"loads": [asdict(load) for load in loads], "terms": asdict(terms), **asdict(made)}))
        return
    _print_plan(loads, terms, made)


def _loads(
    studies_per_day: float | None, mean_size: str | None, objects_per_study: float | None, modalities: list[str]
) -> list[Load]:
    if modalities and studies_per_day is None and mean_size is None and objects_per_study is None:
        return [_load(words) for words in modalities]
    if modalities or studies_per_day is None or mean_size is None:
        raise UsageError("Give --studies-per-day and --mean-size, or --modality CT=15x300MB for each modality.")
    return [make_load(studies_per_day, parse_size(mean_size), objects_per_study)]


def _load(words: str) -> Load:
    match = _LOAD.fullmatch(words.strip())
    if match is None:
        raise UsageError(f"{words!r} says no modality's load. Write CT=15x300MB: 15 studies a day of 300 MB each.")
    objects = float(match["objects"]) if match["objects"] else None
    return make_load(float(match["studies"]), parse_size(match["size"]), objects, match["name"])


def _print_plan(loads: list[Load], terms: Terms, made: Plan) -> None:
    for load in loads:
        typer.echo(
            f"{load.name or 'all':4} {load.studies_per_day:g} studies a day of {format_size(load.study_size_bytes)} "
            f"and {load.objects_per_study:g} objects: {format_size(load.bytes_per_day)} a day"
        )
    typer.echo(
        f"In {terms.years:g} years {made.studies:,} studies, {made.objects:,} objects, "
        + format_size(made.archive_bytes)
        + (f", growing by {terms.growth_percent:g} % a year" if terms.growth_percent else "")
        + (f", compressed {terms.compression:g} times" if terms.compression != 1 else "")
        + ".\n"
    )
    print_table(
        ("disk", "size", "how it was reckoned"),
        [(line.name, f"{line.size_bytes >> 30:,} GiB", line.how) for line in made.lines],
    )


@capacity.command("forecast")
def forecast_command(context: typer.Context, as_json: AsJson = False) -> None:
    """Say when each disk is full, from what arrived each day."""
    from pacs.archive.forecast import forecast
    from pacs.cli.instance import open_instance

    with open_instance(data_of(context)) as instance:
        found = forecast(instance.settings, instance.database, instance.volumes)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    _print_forecast(found)


def _print_forecast(found: Forecast) -> None:
    from pacs.model.forecast import format_days

    if found.growth is None:
        typer.echo("There is nothing to forecast from yet: no day with images is over and counted.\n")
    else:
        typer.echo(
            f"{format_size(found.growth.bytes_per_day)} and {found.growth.objects_per_day:,.0f} objects a day: "
            f"{found.growth.basis}.\n"
        )
    rows: list[tuple[str, ...]] = []
    for each in found.outlooks:
        disk = each.disk
        if disk.free_bytes is None:
            rows.append((disk.name, "", f"{format_size(disk.used_bytes)} used", "", "", "has no bound"))
            continue
        total = disk.used_bytes + disk.free_bytes
        part = disk.used_bytes / total if total else 0
        filled = round(part * _BAR)
        moves = (
            ""
            if each.moves_in_days is None
            else "moves down " + ("now" if each.moves_in_days == 0 else f"from {each.moves_in_days} days on")
        )
        full = format_days(each.full_in_days) if found.growth else ""
        rows.append(
            (disk.name, "█" * filled + "░" * (_BAR - filled), f"{part:.0%} of {format_size(total)}",
             f"{format_size(disk.kept_bytes)} kept for the database" if disk.kept_bytes else "", moves, full)
        )  # fmt: skip
    print_table(("disk", "", "used", "", "", "full"), rows)
