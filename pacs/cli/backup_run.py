"""`pacs backup run|list|status|points`: the database's backups and the recovery points."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pacs import clock
from pacs.backup import points as recovery_points
from pacs.backup import running
from pacs.backup.at_work import at_work, is_at_work
from pacs.backup.cluster_backup import Label, backups
from pacs.backup.configuration import Configuration
from pacs.backup.log_shipping import ShippedLog
from pacs.backup.log_spool import LogSpool
from pacs.backup.mark import MARK
from pacs.backup.pgbackrest import config_file
from pacs.backup.repositories import Repository, open_volume, repositories
from pacs.cli.context import data_of
from pacs.errors import PacsError, RestoreError
from pacs.index.database import Database
from pacs.index.runs import record_run
from pacs.model.schedule import is_open
from pacs.settings import load
from pacs.storage.keyring import Keyring
from pacs.storage.lineage import LineageFiles
from pacs.storage.trial import require_no_trial
from pacs.storage.volume import read_identity

Name = Annotated[str | None, typer.Argument(help="A repository; all of them if none is named.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def backup_run(
    context: typer.Context,
    name: Name = None,
    full: Annotated[bool, typer.Option("--full", help="A full backup, though none is due.")] = False,
    due: Annotated[bool, typer.Option("--due", help="Only what is overdue: for the worker.")] = False,
    nightly: Annotated[bool, typer.Option("--nightly", help="Only within the repositories' windows.")] = False,
) -> None:
    """Back up the database and the configuration now; images are shipped as they arrive.

    Once a week it is a full backup, else an incremental one. What has expired goes. A repository that fails keeps no
    other from its backup.
    """
    data = _data_of(context)
    require_no_trial(data)
    LineageFiles(data).require_settled()  # a fenced node writes to no repository
    (load(data).runtime_folder / running.WANTED_FILE).unlink(missing_ok=True)
    if (data / MARK).exists():
        raise RestoreError("A restore was begun here and did not finish. Run `pacs restore` again; nothing else first.")
    known = repositories(data) if due else running.named(data, name)
    wanted = running.due(data) if due else {each.name: True for each in known}
    failure: PacsError | None = None
    for each in known:
        if due and is_at_work(data, each.name):
            continue  # if it still is due then, that is seen in a moment
        if nightly and not is_open(each.windows, clock.now().astimezone()):
            typer.echo(f"{each.name}: not now; its backup comes when its window is open.")
            continue
        try:
            if wanted.get(each.name):
                _run_one(data, each, full)
            elif each.name in wanted:
                running.run_configuration(data, each)
        except PacsError as error:
            typer.echo(f"{each.name}: {error}", err=True)
            failure = error
    if failure is not None:
        raise failure


def _data_of(context: typer.Context) -> Path:
    """The data directory; data of a newer version are refused before anything is asked of them."""
    data = data_of(context)
    read_identity(data)
    return data


def _run_one(data: Path, repository: Repository, full: bool) -> None:
    started, shown = clock.now(), _bar(repository.name)
    try:
        with shown:
            done = running.run_backup(data, repository, "full" if full else None, shown.update)
    except PacsError as error:
        _record(data, started, False, {"repository": repository.name, "error": str(error)})
        raise
    made = done.backup
    figures = {"repository": repository.name, "label": made.label, "size": made.size_bytes, "added": made.added_bytes}
    _record(data, started, True, figures)
    typer.echo(
        f"{repository.name}: {_KINDS[made.kind]} backup {made.label}, {made.size_bytes / 1e6:.1f} MB, "
        f"{made.added_bytes / 1e6:.1f} MB new; configuration {done.configuration.snapshot_id}."
    )


def _record(data: Path, started: datetime, succeeded: bool, figures: dict[str, Any]) -> None:
    database = Database(load(data).conninfo)
    try:
        record_run(database, "backup", started, succeeded, figures)
    except PacsError as error:
        typer.echo(f"The outcome could not be noted: {error}", err=True)
    finally:
        database.close()


_KINDS = {"full": "full", "incr": "incremental", "diff": "differential"}


def backup_configured(context: typer.Context) -> None:
    """End with 0 if there is a repository, with 9 if not, 14 in a trial copy. For the timer."""
    data = _data_of(context)
    require_no_trial(data)
    running.named(data, None)


def backup_list(context: typer.Context, name: Name = None, as_json: AsJson = False) -> None:
    """Show the backups of the database and the snapshots of the configuration, oldest first."""
    data = _data_of(context)
    found: dict[str, dict[str, Any]] = {}
    for each in running.named(data, name):
        snapshots = Configuration(each, Keyring.open(data), config_file(data, "any").parent).snapshots()
        found[each.name] = {"database": backups(data, each.name), "configuration": snapshots}
    if as_json:
        plain = {
            key: {part: [asdict(row) for row in rows] for part, rows in parts.items()} for key, parts in found.items()
        }
        typer.echo(json.dumps(plain, default=str))
        return
    for key, parts in found.items():
        typer.echo(f"{key}: {len(parts['configuration'])} snapshots of the configuration")
        for made in parts["database"]:
            typer.echo(_line(made))


def _line(made: Label) -> str:
    wrong = "  PAGES WITH WRONG CHECKSUMS" if made.damaged else ""
    return (
        f"  {made.finished_at:%Y-%m-%d %H:%M:%S}  {_KINDS[made.kind]:<12} {made.label:<34} "
        f"{made.size_bytes / 1e6:10.1f} MB {made.added_bytes / 1e6:10.1f} MB new{wrong}"
    )


def backup_status(context: typer.Context, name: Name = None, as_json: AsJson = False) -> None:
    """Show how each repository stands: the log on its way, the last backup, what goes wrong. Asks no repository."""
    data = _data_of(context)
    spool = LogSpool(data)
    found = {}
    for each in running.named(data, name):
        shipped = ShippedLog(spool, each.name)
        state = shipped.read()
        found[each.name] = {
            **asdict(state), "lag_s": shipped.lag_s(), "waiting": len(shipped.missing(state)),
            "spool_bytes": spool.size_bytes(), "at_work": at_work(data, each.name),
        }  # fmt: skip
        found[each.name].pop("pushed")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key, state_of in found.items():
        typer.echo(key)
        for word, value in state_of.items():
            if value not in (None, "", False):
                shown = f"{value['percent']:.0f} % since {value['since']}" if word == "at_work" else value
                typer.echo(f"  {word.replace('_', ' '):<20} {shown}")


def backup_points(context: typer.Context, name: Name = None, as_json: AsJson = False) -> None:
    """Show the recovery points, oldest first: what a restore can go back to. Any moment between two is `--time`."""
    data = _data_of(context)
    keyring = Keyring.open(data)
    found = {}
    for each in running.named(data, name):
        volume = open_volume(each, keyring)
        try:
            found[each.name] = recovery_points.points(volume, keyring)
        finally:
            volume.close()
    if as_json:
        plain = {key: [asdict(point) for point in points] for key, points in found.items()}
        typer.echo(json.dumps(plain, default=str))
        return
    for key, points in found.items():
        typer.echo(f"{key}: {len(points)} recovery points")
        for point in points:
            typer.echo(f"  {point.name}  {point.at:%Y-%m-%d %H:%M:%S} UTC")


class _bar:  # noqa: N801 (used as a function)
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, what: str) -> None:
        self.progress = Progress(
            TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), transient=True
        )
        self.task = self.progress.add_task(what, total=100)

    def __enter__(self) -> _bar:
        if self.progress.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()

    def update(self, percent: float) -> None:
        self.progress.update(self.task, completed=percent)
