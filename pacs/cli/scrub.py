"""`pacs scrub`: every copy read again and compared with its digest."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress_bar import ProgressBar

from pacs import clock
from pacs.archive import scrub as scrubbing
from pacs.archive.fixity import Fixity, fixity
from pacs.cli.context import data_of
from pacs.cli.instance import Instance, open_instance
from pacs.cli.priority import giving_way
from pacs.cli.repair import LISTED, repair_list
from pacs.cli.table import print_table
from pacs.errors import DigestMismatch, NotFound, VolumeFailed
from pacs.index.runs import record_run
from pacs.storage.lineage import LineageFiles

scrub = typer.Typer(no_args_is_help=True, help="Every copy, read again and compared with its digest.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@scrub.command("run")
def scrub_run(
    context: typer.Context,
    volume: Annotated[str, typer.Option(help="Only this volume; default: all.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All that is there, not only what is due today.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0, help="At most so much [MB/s]; 0: no limit; default: scrub_rate_mb_s.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read today's share of the copies. Ends with 10 if one is missing or bad, with 4 if not all could be read."""
    started = clock.now()
    LineageFiles(data_of(context)).require_not_fenced()
    with giving_way(), open_instance(data_of(context)) as instance, _bar(as_json) as bar:
        task = bar.add_task("", total=None)
        limit = instance.settings.scrub_rate_mb_s if rate is None else rate
        work = scrubbing.Scrub(
            instance.database,
            instance.volumes,
            timedelta(days=instance.settings.scrub_period_days),
            limit * 1e6 or None,
            lambda done: bar.update(task, description=done.location, completed=done.done_bytes, total=done.total_bytes),
        )
        findings = work.run(everything, _volume_id(instance, volume) if volume else None)
        findings.failed += [str(reason) for reason in instance.volumes.absent.values() if not volume]
        record_run(instance.database, "scrub", started, findings.is_clean, asdict(findings))
    if as_json:
        typer.echo(json.dumps(asdict(findings)))
    else:
        speed = findings.size_bytes / 1e6 / max(findings.duration_s, 0.001)
        typer.echo(
            f"{findings.copies} copies in {findings.folders} folders read, {findings.size_bytes / 1e6:.1f} MB at "
            f"{speed:.0f} MB/s: {findings.bad} bad, {findings.missing} missing."
        )
    if findings.bad or findings.missing:
        raise DigestMismatch(
            "Copies are missing or bad, and out of service. The worker repairs them: `pacs repair list`. "
            "Look at the volumes' disks."
        )
    if findings.failed:
        raise VolumeFailed(f"Not all could be read: {'; '.join(findings.failed)}")


@scrub.command("status")
def scrub_status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show since when every copy was read, what is due and overdue, how fast it goes and when it will be through."""
    with open_instance(data_of(context)) as instance:
        found = fixity(instance.database, instance.volumes, timedelta(days=instance.settings.scrub_period_days))
        period_days, limit = instance.settings.scrub_period_days, instance.settings.scrub_rate_mb_s
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"since": found.since, "period_days": period_days}, default=str))
        return
    _print_status(found, period_days, limit)


@scrub.command("bad")
def scrub_bad(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = LISTED,
    as_json: AsJson = False,
) -> None:
    """Show the copies that are missing or bad: the same as `pacs repair list`."""
    repair_list(context, limit, as_json)


def _print_status(found: Fixity, period_days: float, limit_mb_s: float) -> None:
    part = found.verified_bytes / found.size_bytes if found.size_bytes else 1.0
    Console().print(
        f"read within {period_days:g} days ", ProgressBar(total=1.0, completed=part, width=40), f" {part:.1%}", sep="",
        end="\n",
    )  # fmt: skip
    typer.echo(f"last full pass: {f'{found.since:%Y-%m-%d %H:%M}' if found.since else 'there is no copy yet'} UTC")
    typer.echo(f"a day's share:  {found.share_bytes / 1e9:.2f} GB; all is read once more by {found.ends_at:%Y-%m-%d}")
    limit = f"{limit_mb_s:.0f} MB/s" if limit_mb_s else "none"
    typer.echo(f"limit:          {limit}{_needed(found, limit_mb_s)}")
    typer.echo(f"now:            {'running' if found.is_running else 'at rest'}; {_last(found)}")
    print_table(
        ("volume", "copies", "GB", "due GB", "overdue", "all read since", "where"),
        [
            (
                each.name, str(each.copies), f"{each.size_bytes / 1e9:.2f}", f"{each.due_bytes / 1e9:.2f}",
                str(each.overdue_copies), f"{each.since:%Y-%m-%d}" if each.since else "", each.location,
            )
            for each in found.volumes
        ],
    )  # fmt: skip


def _needed(found: Fixity, limit_mb_s: float) -> str:
    hours = found.share_bytes / 1e6 / limit_mb_s / 3600 if limit_mb_s else 0
    if hours > 20:
        return f"; too little: a day's share takes {hours:.0f} hours. Raise scrub_rate_mb_s."
    return f"; a day's share takes {hours:.1f} hours" if limit_mb_s else ""


def _last(found: Fixity) -> str:
    if found.last_run is None:
        return "never ran"
    result = found.last_run["result"]
    assert isinstance(result, dict)
    speed = result["size_bytes"] / 1e6 / max(result["duration_s"], 0.001)
    return (
        f"last {found.last_run['finished_at']:%Y-%m-%d %H:%M} UTC: {result['copies']} copies at {speed:.0f} MB/s, "
        f"{result['bad']} bad, {result['missing']} missing"
    )


def _volume_id(instance: Instance, name: str) -> str:
    for row in instance.volumes.rows:
        if name in (row.name, row.volume_id):
            return instance.volumes.get(row.volume_id).volume_id
    raise NotFound(f"There is no volume {name}. `pacs volume list` shows them.")


def _bar(is_silent: bool) -> Progress:
    """On a terminal, a bar; for a pipe or a timer, nothing."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(), console=console, transient=True, disable=is_silent or not console.is_terminal,
    )  # fmt: skip
