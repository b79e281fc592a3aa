"""`pacs machine update`: Debian's security updates (docs/operate/updates.md). Runs as root, called by a timer."""

from __future__ import annotations

from typing import Annotated

import typer

from pacs import clock
from pacs.machine import kept_settings
from pacs.machine.storage import Places
from pacs.machine.updating import Updating
from pacs.storage.upgrade_record import UpgradeFiles


def update(
    at_once: Annotated[
        bool, typer.Option("--now", help="Look and install now. It restarts in a window alone, or by your hand.")
    ] = False,
) -> None:
    """Do what is due of security updates: ask the archive once a day, install and restart in the window."""
    state = Places().state

    def upgrade_is_open() -> bool:
        record = UpgradeFiles(state).record()
        return record is not None and record.is_open

    window = kept_settings.load(state).value("update_window")
    known = Updating(window, upgrade_is_open=upgrade_is_open).turn(clock.now().astimezone(), at_once)
    ours = [name for name, each in known.pending.items() if not each.with_upgrade]
    others = [name for name, each in known.pending.items() if each.with_upgrade]
    typer.echo(f"Window: {known.window}. Looked at: {known.looked_at or 'never'}.")
    for what, names in (("Pending", ours), ("Pending, with the next `pacs upgrade`", others)):
        if names:
            typer.echo(f"{what}: {', '.join(names)}")
    if known.restart_since:
        typer.echo("A restart is needed: programs still run with what was replaced.")
    if known.waits_for:
        typer.echo(f"It waits: {known.waits_for}.")
