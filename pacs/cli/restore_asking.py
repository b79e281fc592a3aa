"""What is asked before a restore: is the old appliance gone, or a trial beside it?

A restore stops the appliance that wrote to the repository. One that wrote there a moment ago is alive, as far as
anybody can see from here: then it is stopped by a person's word only.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import typer

from pacs import clock
from pacs.backup.mark import Begun
from pacs.backup.restore_source import Source
from pacs.errors import RestoreError, UsageError
from pacs.model.restore_progress import format_duration

#: A living appliance renews its mark every quarter of an hour: who wrote since is taken for alive.
RECENT = timedelta(hours=1)


def show_written(at: datetime | None) -> None:
    """Say when a repository was last written to."""
    if at is None:
        typer.echo("Nothing says when it was last written to.")
        return
    typer.echo(f"It was last written to at {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {_ago(at)}.")
    if _is_recent(at):
        typer.echo("THE OLD APPLIANCE SEEMS TO BE ALIVE. It is stopped by a restore, but not by one with --trial.")


def is_trial(source: Source, begun: Begun | None, trial: bool, gone: bool, yes: bool) -> bool:
    """Whether this restore is a trial: as it was said, or as a person at the terminal says now.

    begun: the restore that was begun here: of the same repository it is not asked for again. Raise RestoreError if a
    person's word is needed and nobody is there, typer.Abort if they do not want it.
    """
    if trial and gone:
        raise UsageError("Give one of --trial and --the-old-one-is-gone.")
    if trial or gone:
        return trial
    if begun is not None and begun.repository.get("volume_id") == source.volume.volume_id:
        return begun.is_trial
    at = source.written_at()
    needs_word = at is not None and _is_recent(at)
    if sys.stdin.isatty() and (needs_word or not yes):
        return _asked(needs_word)
    if needs_word:
        assert at is not None
        raise RestoreError(
            f"The repository was written to {_ago(at)}: the old appliance seems to be alive, and a restore would stop "
            "it. Nothing was touched. If it is gone for good, give --the-old-one-is-gone; to try a restore beside it, "
            "give --trial (docs/operate/restore.md)."
        )
    return False


def _asked(needs_word: bool) -> bool:
    if needs_word:
        return _choice("Is the old appliance gone for good, or a trial beside it?", ("gone", "trial")) == "trial"
    said = _choice("Restore this onto this appliance: to be the archive, or as a trial?", ("archive", "trial", "no"))
    if said == "no":
        raise typer.Abort
    return said == "trial"


def _choice(question: str, answers: tuple[str, ...]) -> str:
    """One of the answers, asked for until it is one. Raise typer.Abort where nothing more is typed."""
    while True:
        said = str(typer.prompt(f"{question} ({', '.join(answers)})")).strip().lower()
        if said in answers:
            return said


def _is_recent(at: datetime) -> bool:
    """Also of what comes: a clock that is wrong proves nobody to be gone."""
    return clock.now() - at < RECENT


def _ago(at: datetime) -> str:
    seconds = (clock.now() - at).total_seconds()
    return f"{format_duration(seconds)} ago" if seconds >= 0 else "which is yet to come: a clock is wrong"
