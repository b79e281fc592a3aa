"""`pacs lineage`: whether this node is the archive, and whether something went back in time."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pacs.archive.lineage import begin_epoch
from pacs.cli.context import acting_as_owner, data_of
from pacs.errors import UsageError
from pacs.model.lineage import Mark
from pacs.storage.lineage import LineageFiles
from pacs.storage.looking_back import note_claim
from pacs.storage.trial import require_no_trial, trial_at

lineage = typer.Typer(no_args_is_help=True, help="Whether this node is the archive, and nothing went back in time.")


@lineage.command("show")
def lineage_show(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show the lineage, and what is wrong with it."""
    data = data_of(context)
    files, trial = LineageFiles(data), trial_at(data)
    state, why, notice = files.state(), files.fenced(), files.reverted()
    if as_json:
        values = asdict(state.mark) if state else None
        shown = {"mark": values, "fenced": why, "reverted": asdict(notice) if notice else None}
        typer.echo(json.dumps({**shown, "trial": asdict(trial) if trial else None}))
        return
    mark = state.mark if state else Mark("none yet", 0)
    typer.echo(f"lineage {mark.lineage_id}, epoch {mark.epoch}, generation {mark.generation} of {mark.at or 'never'}")
    if trial is not None:
        typer.echo(f"trial copy: {trial.words}")
    if why is not None:
        typer.echo(f"fenced: {why}")
    if notice is not None:
        typer.echo(f"noticed {notice.noticed_at}: something went back in time")
        for each in (*notice.findings, *notice.problems):
            typer.echo(f"  {each}")
        typer.echo(f"  put right: {notice.reconciled_at or 'not yet'} {json.dumps(notice.result)}")


@lineage.command("acknowledge")
def lineage_acknowledge(context: typer.Context) -> None:
    """Say that you have seen what went back in time, once it is put right: the warning ends."""
    data = data_of(context)
    files = LineageFiles(data)
    notice = files.reverted()
    if notice is None:
        raise UsageError("Nothing went back in time that was not acknowledged.")
    if not notice.reconciled_at:
        raise UsageError("It is not put right yet. `pacs lineage show` says how far it is; the worker is at it.")
    with acting_as_owner(data / "lineage"):
        files.forget_reverted()
    typer.echo("Acknowledged.")


@lineage.command("claim")
def lineage_claim(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="The other node is shut down for good.")] = False,
) -> None:
    """Say that this node is the archive from now on, and no other: it begins a new epoch.

    A node that meets it then stops. What its volumes hold beyond its index is found again first.
    """
    data = data_of(context)
    require_no_trial(data)
    files = LineageFiles(data)
    if not yes:
        raise UsageError(
            "What another node has taken in since is on that node only. Shut it down for good, then give --yes "
            "(docs/operate/going-back-in-time.md)."
        )
    with acting_as_owner(data / "lineage"):
        note_claim(files)
        mark = begin_epoch(data, above=files.highest_epoch())
    typer.echo(f"This node begins epoch {mark.epoch}. `pacs lineage show` says how far it is put right.")
