"""`pacs machine list|get|set|confirm|go-back|settings|manage|keys|sheet|setup`: the machine's settings.

Registered in pacs.cli.machine, whose boot path must need nothing of the service's libraries: no import of them here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from pacs import __version__
from pacs.cli import locks
from pacs.errors import UsageError, VolumeError
from pacs.machine import changing, seeds
from pacs.machine import storage as volumes
from pacs.machine.changing import Machine
from pacs.machine.machine_settings import PAGES, SETTINGS, TABLE, setting
from pacs.machine.network_change import CONFIRM_S

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Confirm = Annotated[
    float, typer.Option("--confirm-within", help="A new network goes back after so long, unless confirmed [s].")
]


def register(machine: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, command in (
        ("list", settings_list), ("get", settings_get), ("set", settings_set), ("confirm", confirm),
        ("go-back", go_back), ("settings", settings_start), ("manage", manage), ("setup", setup), ("sheet", sheet),
    ):  # fmt: skip
        machine.command(name)(command)


def this_machine() -> Machine:
    """This machine, whose settings are on its state volume. Raise VolumeError if that is not there."""
    places = volumes.Places()
    answer = volumes.read_answer(places)
    if answer is None or not answer.ready:
        raise VolumeError("The storage is not ready, and the settings are on it. See: systemctl status pacs-storage")
    return Machine.at(places.state)


def _is_ready() -> bool:
    answer = volumes.read_answer(volumes.Places())
    return answer is not None and answer.ready


def settings_list(as_json: AsJson = False) -> None:
    """Show every setting of the machine, and who keeps it."""
    machine = this_machine()
    values, managed = machine.values(), machine.kept().managed
    if as_json:
        shown = {row.name: {"value": values[row.name], "managed": row.name in managed} for row in TABLE}
        typer.echo(json.dumps(shown))
        return
    for page in PAGES:
        typer.echo(page)
        for row in TABLE:
            if row.page == page:
                note = "   (managed by Ansible)" if row.name in managed else ""
                typer.echo(f"  {row.name:20} {summary(values[row.name])}{note}")
    _tell_pending(machine)


def summary(text: str) -> str:
    """A value in one short line."""
    if "BEGIN CERTIFICATE" in text:
        return f"{text.count('BEGIN CERTIFICATE')} certificate(s)"
    lines = text.splitlines()
    if not lines:
        return "-"
    if len(lines) > 1 or lines[0].startswith(("ssh-", "ecdsa-", "sk-")):
        return f"{len(lines)} key(s): " + ", ".join(line.split()[-1][-24:] for line in lines)
    return lines[0]


def settings_get(name: Annotated[str, typer.Argument(help="As `pacs machine list` shows.")]) -> None:
    """Print one setting's value."""
    setting(name)
    typer.echo(this_machine().values()[name])


def settings_set(
    given: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="NAME=@FILE reads it; NAME= resets it.")],
    confirm_within: Confirm = CONFIRM_S,
) -> None:
    """Change settings: checked together, then put into effect. A new network goes back unless it is confirmed."""
    # Whoever changes the address that they came by loses this session in the middle.
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    machine = this_machine()
    is_new = machine.change(dict(_pair(each) for each in given), confirm_within)
    with contextlib.suppress(OSError):
        if is_new:
            typer.echo(
                f"The network is new now, for {confirm_within:g} s. Come in by its new address, and keep it with "
                "`sudo pacs machine confirm`. Else it goes back by itself."
            )
        else:
            typer.echo("Changed.")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r}: give NAME=VALUE, as address=192.0.2.10/24.")
    if value.startswith("@"):
        try:
            value = Path(value[1:]).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"{value[1:]} cannot be read: {error}.") from error
    return name.strip(), value


def confirm() -> None:
    """Keep the new network."""
    this_machine().network.confirm()
    typer.echo("The network stays as it is.")


def go_back(
    quietly: Annotated[bool, typer.Option("--quietly", help="For the timer: nothing to take back is fine.")] = False,
) -> None:
    """Take a change of the network back that was not confirmed."""
    if this_machine().network.go_back():
        typer.echo("The network is as it was before.")
    elif not quietly:
        raise UsageError("No change of the network waits to be confirmed: set the old values again.")


def settings_start() -> None:
    """Take what the seeds say, and put all settings into effect. For the start of the machine."""
    places = volumes.Places()
    answer = volumes.read_answer(places)
    if answer is None or not answer.ready:
        typer.echo("The storage is not ready: the settings stay as this system disk has them.")
        return
    changing.write_notes(Machine.at(places.state).start(seeds.collect()))


def manage(confirm_within: Confirm = CONFIRM_S) -> None:
    """For Ansible: have the settings on standard input (a JSON object) be its own, and no others."""
    try:
        found = json.loads(sys.stdin.read())
        given = seeds.said({name: found[name] for name in found if name in SETTINGS})
    except (ValueError, TypeError) as error:
        raise UsageError(f"Give a JSON object of settings on standard input ({error}).") from error
    for name in found:
        setting(name)
    changed, is_new = this_machine().manage(given, confirm_within)
    typer.echo(f"changed: {', '.join(changed)}" if changed else "unchanged")
    if is_new:
        typer.echo(f"confirm the network within {confirm_within:g} s: pacs machine confirm")


def setup(
    on_display: Annotated[
        bool, typer.Option("--display", help="Called from the display: who may, is a setting.")
    ] = False,
) -> None:
    """The menu: all settings, keys, backup, restore, and what a modality's engineer needs."""
    from pacs.machine.menu import Menu
    from pacs.machine.menu_door import require_open

    # A session that is cut off leaves nothing behind: a login that was typed is in a file for as long as it is used.
    signal.signal(signal.SIGHUP, lambda _number, _frame: sys.exit(1))
    if any(disk.locked for disk in volumes.look(volumes.Places())) and not _is_ready():
        # Who has the sheet's key may: nothing else is offered, and nothing else would work.
        locks.unlock()
        return
    machine = this_machine()
    if on_display:
        require_open(machine)
    Menu(machine, _version(), on_display).run()


def sheet() -> None:
    """Print what a modality's engineer needs: AE title, address, ports, TLS."""
    from pacs.machine.engineer_sheet import sheet_of

    typer.echo(sheet_of(this_machine()))


def _version() -> str:
    return os.environ.get("PACS_APPLIANCE_VERSION", __version__)


def _tell_pending(machine: Machine) -> None:
    waiting = machine.network.pending()
    if waiting is not None:
        typer.echo(f"\nThe network goes back in {max(0, waiting.left_s):.0f} s, unless: sudo pacs machine confirm")
