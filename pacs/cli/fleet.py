"""`pacs fleet`: several appliances, from a workstation. Run in a check-out of this repository, where Fabric is."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pacs import clock
from pacs.cli.table import print_table
from pacs.errors import PacsError, UsageError
from pacs.fleet.inventory import Appliance, appliances

if TYPE_CHECKING:
    from pacs.fleet.errands import Outcome
    from pacs.fleet.host_keys import Ask
    from pacs.fleet.node import Node
    from pacs.fleet.status import Status

fleet = typer.Typer(no_args_is_help=True, help="Several appliances, from an operator's workstation.")

#: As `pacs check` has them; an appliance that is not reached is no better than one that is sick.
EXIT_CODES = {"ok": 0, "warning": 1, "critical": 2, "unreachable": 2}

Names = Annotated[list[str] | None, typer.Argument(help="Which appliances of the inventory; else all.")]
Inventory = Annotated[
    Path | None, typer.Option("--inventory", "-i", help="The inventory; else what Ansible takes (ansible.cfg).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class FleetFailed(PacsError):
    """Not every appliance did it. The lines above say which did not, and why."""

    exit_code = 23


@fleet.command("status")
def fleet_status(names: Names = None, inventory: Inventory = None, as_json: AsJson = False) -> None:
    """Show how every appliance is. Ends as `pacs check` does: 0 if all are well, 1 with a warning, 2 with worse or
    with one that cannot be reached."""
    chosen = _chosen(inventory, names)
    from pacs.fleet.status import on_each, status_of, worst_of

    found = on_each(chosen, status_of, _ask())
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
    else:
        _print_status(found)
    raise typer.Exit(EXIT_CODES[worst_of(found)])


@fleet.command("drill")
def fleet_drill(
    names: Names = None,
    inventory: Inventory = None,
    at_once: Annotated[int, typer.Option(min=1, help="On how many appliances at once.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Have every appliance prove that a restore works, as it does each night. Ends with 23 if one does not."""
    chosen = _chosen(inventory, names)
    from pacs.fleet.errands import drill

    _report(chosen, drill, at_once, as_json)


@fleet.command("support-bundle")
def fleet_support_bundle(
    to: Annotated[Path, typer.Option(help="The folder that they are written into.")],
    names: Names = None,
    inventory: Inventory = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a support bundle from every appliance. Ends with 23 if one gives none."""
    chosen = _chosen(inventory, names)
    from pacs.fleet.errands import fetch_bundle

    try:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{to} cannot be made: {error.strerror}. Name another folder.") from error
    now = clock.now()
    _report(chosen, lambda node: fetch_bundle(node, to, now), len(chosen), as_json)


@fleet.command("upgrade")
def fleet_upgrade(
    file: Annotated[Path, typer.Argument(help="pacs-appliance-VERSION.upgrade of the release.")],
    names: Names = None,
    inventory: Inventory = None,
    patience: Annotated[int, typer.Option(min=1, help="Minutes that an appliance has to be back.")] = 90,
) -> None:
    """Upgrade every appliance, one after the other, and end at the first that does not pass its selftest: the others
    stay as they are."""
    chosen = _chosen(inventory, names)
    from pacs.fleet.node import Node
    from pacs.fleet.upgrade import Upgrade

    work = Upgrade(file, _tell, threading.Event().wait, patience * 60.0)
    for number, appliance in enumerate(chosen):
        with Node(appliance, _ask()) as node:
            outcome = work.run(node)
        typer.echo(f"{'done' if outcome.succeeded else 'FAILED':8}{outcome.name}: {outcome.message}")
        if not outcome.succeeded:
            left = ", ".join(each.name for each in chosen[number + 1 :])
            raise FleetFailed(f"It ends here. {f'Not touched: {left}.' if left else 'It was the last one.'}")


@fleet.command("compare")
def fleet_compare(
    one: Annotated[str, typer.Argument(help="An appliance; it signs with the archive's key.")],
    other: Annotated[str, typer.Argument(help="The one that is to hold the same.")],
    to: Annotated[Path, typer.Option(help="The file that the certificate is written to.")],
    inventory: Inventory = None,
) -> None:
    """Have two appliances read all that they hold, and get a signed certificate that it is the same. Ends with 10 if it
    is not."""
    first, second = _chosen(inventory, [one, other], 2)
    from pacs.fleet.compare import compare
    from pacs.fleet.node import Node

    with Node(first, _ask()) as here, Node(second, _ask()) as there:
        found = compare(here, there, _tell)
    try:
        to.write_bytes(found)
    except OSError as error:
        raise UsageError(f"{to} cannot be written: {error.strerror}. Run it again: all is read.") from error
    typer.echo(f"They hold the same. The certificate is in {to}.")


@fleet.command("move")
def fleet_move(
    old: Annotated[str, typer.Argument(help="The appliance that has the archive.")],
    new: Annotated[str, typer.Argument(help="The empty one that is to have it.")],
    certificate: Annotated[Path, typer.Option(help="The file that the certificate of equality is written to.")],
    inventory: Inventory = None,
    call_off: Annotated[bool, typer.Option("--call-off", help="Call off a move: the old one goes on.")] = False,
    pause: Annotated[
        int, typer.Option(min=1, help="Minutes that the old one may take nothing for the last copy.")
    ] = 15,
) -> None:
    """Move the archive of one appliance to another, while it works but for the last minutes. The same command goes on
    with a move that was ended; --call-off works until the new one takes over."""
    first, second = _chosen(inventory, [old, new], 2)
    from pacs.fleet.move import Move
    from pacs.fleet.node import Node

    with Node(first, _ask()) as here, Node(second, _ask()) as there:
        work = Move(here, there, certificate, _tell, threading.Event().wait, pause * 60.0)
        if call_off:
            work.call_off()
            typer.echo(
                f"Called off. {old} is the archive; {new} follows it yet. To part them: shut {new} down, then on {old} "
                "`pacs standby leave`. To go on: the same command without --call-off."
            )
            return
        work.run()
    typer.echo(
        f"{new} is the archive. {old} is fenced: it takes nothing. Point the modalities to {new}; then on it `pacs "
        "standby release`, so that it sends what waits, and when you are sure `pacs standby leave`."
    )


def _tell(name: str, what: str) -> None:
    typer.echo(f"{clock.now():%H:%M:%S}  {name}: {what}")


def _report(chosen: list[Appliance], errand: Callable[[Node], Outcome], at_once: int, as_json: bool) -> None:
    """Do it on each, say of each what came of it as soon as it is known, and raise FleetFailed if one failed."""
    from pacs.fleet.status import on_each

    saying = threading.Lock()

    def done(node: Node) -> Outcome:
        outcome = errand(node)
        if not as_json:
            with saying:
                typer.echo(f"{'done' if outcome.succeeded else 'FAILED':8}{outcome.name}: {outcome.message}")
        return outcome

    found = on_each(chosen, done, _ask(), at_once)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
    failed = [each.name for each in found if not each.succeeded]
    if failed:
        raise FleetFailed(f"{len(failed)} of {len(found)} did not: {', '.join(failed)}. The reasons stand above.")


def _chosen(inventory: Path | None, names: list[str] | None, number: int = 0) -> list[Appliance]:
    """The appliances that are meant; of a number of them, if one is given."""
    if find_spec("fabric") is None:
        raise UsageError(
            "Fabric is not here: `pacs fleet` is run on a workstation, in a check-out of this repository after "
            "`make setup`. See docs/operate/fleet.md."
        )
    found = appliances(inventory, tuple(names or ()))
    if number and len(found) != number:
        raise UsageError("Name two different appliances of the inventory.")
    return found


def _ask() -> Ask | None:
    """Who is asked about a host key that is not known: the person at the terminal, one key after the other."""
    if not sys.stdin.isatty():
        return None
    asking = threading.Lock()

    def ask(host: str, kind: str, fingerprint: str) -> bool:
        with asking:
            typer.echo(f"{host} is not known. Its key: {kind} {fingerprint}", err=True)
            return typer.confirm("Is that what the appliance's own screen shows?", err=True)

    return ask


def _print_status(found: list[Status]) -> None:
    print_table(
        ("appliance", "state", "version", "backup", "drill"),
        [
            (each.name, each.severity.upper(), each.version, each.message("backup"), each.message("drill"))
            for each in found
        ],
    )
    for each in found:
        if each.error:
            typer.echo(f"\n{each.name}: {each.error}")
        elif each.problems:
            typer.echo(f"\n{each.name}:")
        for problem in each.problems:
            hint = f"  → {problem['hint']}" if problem["hint"] else ""
            typer.echo(f"  {problem['severity'].upper():9}{problem['name']:12}{problem['message']}{hint}")
