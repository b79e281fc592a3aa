"""`pacs machine unlock|locks`: encrypted volumes opened by the recovery sheet, and what opens each of them.

Registered in pacs.cli.machine, whose boot path must need nothing of the service's libraries: no import of them here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacs.backup.master_key import MasterKey
from pacs.errors import UsageError, VolumeError
from pacs.machine import encryption, unlocking
from pacs.machine import storage as volumes
from pacs.machine.commands import run
from pacs.machine.policy import Disk


def register(machine: typer.Typer) -> None:
    """Add the commands of this module."""
    machine.command("unlock")(unlock)
    machine.command("locks")(locks)
    machine.command("settle-locks", hidden=True)(settle_locks)


def unlock(
    sheet_file: Annotated[
        Path | None, typer.Option(help="A file with the key as it stands on the sheet; else it is asked for.")
    ] = None,
) -> None:
    """Open the encrypted volumes with the key of the recovery sheet, and go on with the start."""
    places = volumes.Places()
    before = volumes.read_answer(places)
    locked = [disk for disk in volumes.look(places) if disk.locked]
    if not locked:
        raise UsageError("No volume is locked. What the machine waits for: systemctl status pacs-storage")
    typer.echo(f"Locked: {', '.join(f'{disk.path} ({disk.label})' for disk in locked)}")
    words = _words(sheet_file)
    opened = unlocking.open_by_sheet(locked, MasterKey.typed(words))
    typer.echo(f"Open now: {', '.join(opened)}. The machine goes on with its start.")
    if before is not None and before.ready:  # a disk that was added: what runs, runs on
        for note in volumes.start(places).notes:
            typer.echo(note)
        return
    run("systemctl", "restart", "pacs-storage.service", accept=range(256))
    answer = volumes.read_answer(places)
    for line in (*(answer.problems if answer else ()), *(answer.notes if answer else ())):
        typer.echo(line)
    if answer is None or not answer.ready:
        raise VolumeError("The storage is not ready yet. The screen says what to do.")
    # Units that could not start without the volumes, and those that started with what there was.
    run("systemctl", "restart", "pacs-settings.service", "pacs-access.service", accept=range(256))
    run("systemctl", "try-restart", "ssh.service", accept=range(256))  # its sessions stay
    run("systemctl", "--no-block", "start", "multi-user.target", accept=range(256))


def locks() -> None:
    """Show which volumes are encrypted, and what opens each."""
    for disk in volumes.look(volumes.Places()):
        if disk.locked or disk.backing:
            typer.echo(_line(disk))
        elif disk.fs_uuid and disk.label.startswith("pacs-"):
            typer.echo(f"{disk.path}  {disk.label}  not encrypted")


def settle_locks() -> None:
    """Have the volumes opened by the sheet that counts now. For the unit that runs when it has changed."""
    places = volumes.Places()
    for note in volumes.bring_locks_in_order(places, volumes.look(places)):
        typer.echo(note, err=True)


def _line(disk: Disk) -> str:
    device = disk.backing or disk.path
    slots = encryption.slots(device)
    ways = [f"recovery sheet {slots.sheet_id}"] if slots.sheet else []
    ways += ["TPM"] if slots.tpm else []
    ways += ["key on the state volume"] if slots.own and disk.label != "pacs-state" else []
    ways += [f"{len(slots.others)} slot(s) that are not the appliance's"] if slots.others else []
    return f"{device}  {disk.label}  {'LOCKED' if disk.locked else 'open'}  opened by: {', '.join(ways)}"


def _words(sheet_file: Path | None) -> str:
    if sheet_file is None:
        return str(typer.prompt("The key, as it stands on the recovery sheet"))
    try:
        return sheet_file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{sheet_file} cannot be read: {error}.") from error
