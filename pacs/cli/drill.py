"""`pacs drill run|status`: a restore that is proven."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pacs.backup.drill import FOLDER, Drill
from pacs.backup.keys import Keyring
from pacs.backup.repositories import repositories
from pacs.cli.context import data_of
from pacs.cli.dev import unprivileged_user
from pacs.cli.instance import open_database
from pacs.cli.priority import giving_way
from pacs.errors import NotFound, RestoreError, UsageError
from pacs.index.runs import newest_run
from pacs.model.drill_outcome import DrillOutcome
from pacs.settings import load
from pacs.storage.trial import require_no_trial

drill = typer.Typer(no_args_is_help=True, help="The proof that a restore works.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@drill.command("run")
def drill_run(
    context: typer.Context,
    repository: Annotated[
        str | None, typer.Option(help="Which repository; else the one with the newest recovery point.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore the newest recovery point into scratch space, ask it for objects, and compare them with the living
    archive. Ends with 8 if that does not prove that a restore works."""
    data = data_of(context)
    require_no_trial(data)
    settings = load(data)
    user = unprivileged_user(data)
    with giving_way(), open_database(settings) as database, _alone(data):
        outcome = Drill(settings, database, Keyring.open(data), user, repository).run()
    if as_json:
        typer.echo(json.dumps(asdict(outcome)))
    else:
        _print(outcome)
    if not outcome.is_proven:
        raise RestoreError("The restore is not proven: see above, and docs/operate/drill.md.")


@drill.command("configured")
def drill_configured(context: typer.Context) -> None:
    """End with 0 if there is a repository to drill from, with 2 if not, 14 in a trial copy. For the timer."""
    require_no_trial(data_of(context))
    if not repositories(data_of(context)):
        raise UsageError("There is no backup repository. `pacs backup repository add`.")


@drill.command("status")
def drill_status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what the last drill found."""
    with open_database(load(data_of(context))) as database:
        last = newest_run(database, "drill")
    if last is None:
        raise NotFound("No drill ran yet. It runs every night; now: `pacs drill run`.")
    if as_json:
        typer.echo(json.dumps(last, default=str))
        return
    typer.echo(f"{last['finished_at']:%Y-%m-%d %H:%M} UTC: {'proven' if last['succeeded'] else 'NOT PROVEN'}")
    _print(DrillOutcome(**last["result"]))


def _print(outcome: DrillOutcome) -> None:
    if outcome.error:
        typer.echo(f"It could not be done: {outcome.error}")
        return
    typer.echo(outcome.sentence)
    for problem in outcome.problems:
        typer.echo(f"  {problem}")


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the scratch space. Raise UsageError if another drill does."""
    (data / FOLDER).mkdir(mode=0o755, exist_ok=True)
    with (data / FOLDER / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError("Another drill is at work here. Wait for it.") from None
        yield
