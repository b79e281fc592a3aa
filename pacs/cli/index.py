"""`pacs index rebuild|list|drop`: the index, made anew from the volumes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from pacs.archive.fixity_notes import take_in
from pacs.archive.rebuild import Outcome, Progress, Tell
from pacs.archive.rebuild_index import abandon, rebuild_index
from pacs.archive.rebuild_mark import Begun
from pacs.cli.cluster import Cluster
from pacs.cli.context import acting_as_owner, data_of
from pacs.cli.dev import unprivileged_user
from pacs.cli.instance import open_instance
from pacs.errors import DigestMismatch
from pacs.index.databases import Databases
from pacs.settings import Settings, load

index = typer.Typer(no_args_is_help=True, help="The index of what is in the archive.")

_LINE_EVERY_S = 10


@index.command("rebuild")
def index_rebuild(
    context: typer.Context,
    replace: Annotated[bool, typer.Option("--replace", help="An index that holds objects is replaced; kept.")] = False,
    trust_names: Annotated[
        bool, typer.Option("--trust-names", help="Read headers only; the next scrub reads the rest.")
    ] = False,
    without: Annotated[
        list[str] | None, typer.Option(metavar="VOLUME", help="Go on without a volume that is gone; its name or id.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="The folder of the journal that is right, where copies contradict.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=0, help="Processes that read; default: one a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    give_up: Annotated[
        bool, typer.Option("--abandon", help="Give a rebuild up that was begun; the index stays as it was.")
    ] = False,
) -> None:
    """Make the index anew from the volumes and the journal, with all services stopped. Goes on after it was ended.

    Ends with 10 if files were left out as damaged, or objects that had come are on no volume.
    """
    settings = load(data_of(context))
    with _database_running(settings), acting_as_owner(settings.data / "config"):
        if give_up:
            abandon(settings)
            typer.echo("The rebuild was given up. The index is as it was; the services may start.")
            return
        told = Begun(trust_names=trust_names, without=tuple(without or ()))
        count = (os.cpu_count() or 1) if processes is None else processes
        with _progress() as tell:
            outcome, kept = rebuild_index(settings, told, replace, journal, count, tell)
        with open_instance(settings.data) as instance:
            lost = take_in(instance.database, instance.volumes.own())
    if as_json:
        typer.echo(json.dumps({**asdict(outcome), "kept": kept, "known_lost": lost}))
    else:
        _print(outcome, kept, lost)
    if outcome.missing or outcome.left_out:
        raise DigestMismatch("Files are damaged or missing: see above, and docs/operate/rebuild.md for what to do.")


@index.command("list")
def index_list(context: typer.Context) -> None:
    """Show the indexes that were replaced and are kept."""
    found = Databases(load(data_of(context)).conninfo).replaced()
    typer.echo("\n".join(found) if found else "None is kept.")


@index.command("drop")
def index_drop(
    context: typer.Context, name: Annotated[str, typer.Argument(help="As `pacs index list` shows.")]
) -> None:
    """Remove an index that was replaced."""
    Databases(load(data_of(context)).conninfo).drop_replaced(name)
    typer.echo(f"{name} is gone.")


def _print(outcome: Outcome, kept: str, lost: int) -> None:
    rate = outcome.files / outcome.seconds if outcome.seconds else 0
    typer.echo(
        f"{outcome.studies} studies, {outcome.objects} objects, {outcome.copies} copies; "
        f"{outcome.files} files read in {outcome.seconds:.0f} s, {rate:.0f} a second."
    )
    if outcome.trusted_names:
        typer.echo("Their digests were not compared: run `pacs scrub run`, or wait for the scrub's next pass.")
    if outcome.unreceipted:
        typer.echo(f"{outcome.unreceipted} objects had no receipt: they have their file's time, and no sender.")
    if outcome.spare:
        typer.echo(f"{outcome.spare} files are a second one on their volume; `pacs reconcile run` puts them aside.")
    for row in outcome.left_out_files:
        typer.echo(f"left out: {row['path']} on volume {row['volume_id']}: {row['reason']}")
    for row in outcome.missing_objects:
        typer.echo(
            f"missing: object {row['sop_instance_uid']} of study {row['study_instance_uid']}, "
            f"which {row['calling_ae'] or 'somebody'} sent on {row['arrived_at']}"
        )
    for count, shown, what in (
        (outcome.left_out, len(outcome.left_out_files), "files were left out"),
        (outcome.missing, len(outcome.missing_objects), "objects are missing"),
    ):
        if count > shown:
            typer.echo(f"{count} {what}, of which {shown} are shown.")
    if lost:
        typer.echo(f"{lost} copies were known to be lost, and still are: `pacs repair list`. The worker repairs them.")
    for problem in outcome.problems:
        typer.echo(f"journal: {problem}")
    if kept:
        typer.echo(f"The old index is kept as {kept}: `pacs index drop {kept}` when all is well. Start the services.")
    else:
        typer.echo("Start the services.")


@contextmanager
def _database_running(settings: Settings) -> Iterator[None]:
    """Of an instance of `pacs dev`, which is ended: its private cluster runs meanwhile."""
    cluster = Cluster(settings.data, unprivileged_user(settings.data)) if not settings.database else None
    if cluster is None or cluster.is_running():
        yield
        return
    cluster.start()
    try:
        yield
    finally:
        cluster.stop()


@contextmanager
def _progress() -> Iterator[Tell]:
    """A bar on a terminal, a line now and then elsewhere, on standard error."""
    with Bar(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total} days"),
        TextColumn("{task.fields[files]} files"), TimeElapsedColumn(), transient=True,
    ) as bar:  # fmt: skip
        is_terminal = bar.console.is_terminal
        if not is_terminal:
            bar.stop()
        task = bar.add_task("looking", total=None, files=0)
        next_s = time.monotonic() + _LINE_EVERY_S

        def tell(progress: Progress) -> None:
            nonlocal next_s
            if is_terminal:
                bar.update(
                    task, description=progress.what, completed=progress.days_done, total=progress.days or None,
                    files=progress.files,
                )  # fmt: skip
            elif time.monotonic() >= next_s:
                next_s += _LINE_EVERY_S
                typer.echo(
                    f"{progress.what}: {progress.days_done} of {progress.days} days, {progress.files} files, "
                    f"{progress.size_bytes / 1e9:.1f} GB",
                    err=True,
                )

        yield tell
