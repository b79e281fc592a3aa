"""`pacs backup run|list|configured`, `pacs restore`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pacs.backup.backup import Backup
from pacs.backup.repository import Repository
from pacs.backup.restore import Restore
from pacs.cli.backup_keys import keys
from pacs.cli.backup_repository import repository
from pacs.cli.context import acting_as_owner, data_of
from pacs.cli.instance import open_instance
from pacs.errors import UsageError
from pacs.settings import Settings, load

backup = typer.Typer(no_args_is_help=True, help="Backups.")
backup.add_typer(repository, name="repository")
backup.add_typer(keys, name="keys")

_UNSET = "No backup repository is set. Set backup_repository in config/pacs.toml, or PACS_BACKUP_REPOSITORY."


def _repository_of(settings: Settings) -> Path:
    if settings.backup_repository is None:
        raise UsageError(_UNSET)
    return settings.backup_repository


@backup.command("configured")
def backup_configured(context: typer.Context) -> None:
    """End with 0 if a repository is set, with 2 if not. For the timer."""
    _repository_of(load(data_of(context)))


@backup.command("run")
def backup_run(context: typer.Context) -> None:
    """Make a recovery point now: database, every object, settings, keys, journal."""
    data = data_of(context)
    with open_instance(data) as instance, _bar("objects") as show:
        root = _repository_of(instance.settings)
        done = Backup(data, instance.database, instance.volumes, root, instance.settings.backup_keep).run(show)
    typer.echo(
        f"Recovery point {done.point}: {done.objects} objects, {done.size_bytes / 1e6:.1f} MB; "
        f"{done.copied} copied now, {done.copied_bytes / 1e6:.1f} MB."
    )


@backup.command("list")
def backup_list(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show the recovery points, oldest first."""
    repository = Repository(_repository_of(load(data_of(context))))
    found = {name: repository.manifest(name) for name in repository.points()}
    if as_json:
        typer.echo(json.dumps({name: asdict(manifest) for name, manifest in found.items()}))
        return
    for name, manifest in found.items():
        typer.echo(f"{name}  {manifest.objects} objects, {manifest.size_bytes / 1e6:.1f} MB")
    if not found:
        typer.echo("There is none.")


def restore(
    context: typer.Context,
    repository: Annotated[Path | None, typer.Option(help="The repository's folder.")] = None,
    point: Annotated[str | None, typer.Option(help="The recovery point; the newest if none is named.")] = None,
) -> None:
    """Restore a recovery point onto this empty appliance. What is there already is never overwritten."""
    data = data_of(context)
    settings = load(data)
    opened = Repository(repository or _repository_of(settings))
    with (
        acting_as_owner(settings.tier1_root),
        open_instance(data, in_restore=True) as instance,
        _bar("objects") as show,
    ):
        job = Restore(data, instance.database, instance.volumes, opened)
        name, manifest = job.run(point, show)
    job.finish(name, manifest)
    typer.echo(f"Restored {manifest.objects} objects of {manifest.created}. Start the services, or restart.")


class _bar:  # noqa: N801 (used as a function)
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, what: str) -> None:
        self.progress = Progress(
            TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True
        )
        self.task = self.progress.add_task(what, total=None)

    def __enter__(self) -> _bar:
        if self.progress.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()

    def __call__(self, done: int, total: int, _size_bytes: int) -> None:
        self.progress.update(self.task, completed=done, total=total)
