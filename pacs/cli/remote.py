"""`pacs remote`: access from elsewhere through WireGuard, which the appliance dials (docs/operate/remote-access.md)."""

from __future__ import annotations

from typing import Annotated

import typer

from pacs.cli.machine_settings import this_machine
from pacs.errors import UsageError
from pacs.machine import remote_access
from pacs.machine.commands import output, run
from pacs.machine.machine_settings import Effect

remote = typer.Typer(no_args_is_help=True, help="Access from elsewhere, through WireGuard. Runs as root.")


@remote.command()
def show() -> None:
    """Show the tunnel, the public key that the far side must know, and when that answered last."""
    machine = this_machine()
    typer.echo(f"This appliance's public key: {remote_access.public_key(remote_access.own_key(machine.state))}")
    found = remote_access.wanted(machine.values())
    if found is None:
        typer.echo("Remote access is off.")
        return
    typer.echo(f"Dials {found.endpoint}, whose key is {found.peer}")
    typer.echo(f"Its own address is {found.address}; it answers {', '.join(found.networks)}")
    typer.echo(f"Open through the tunnel: {machine.values()[remote_access.OPEN]}")
    ago_s = remote_access.last_handshake_s()
    typer.echo(f"Last answer: {f'{ago_s:.0f} s ago' if ago_s is not None else 'none yet'}")


@remote.command("new-peer")
def new_peer(
    endpoint: Annotated[str, typer.Argument(help="Where the far side can be called: vpn.example.com:51820.")],
    address: Annotated[str, typer.Option(help="The appliance's address in the tunnel.")] = "10.98.76.2/24",
) -> None:
    """Make a far side: its configuration is shown once, as text and as a QR code, and is kept nowhere."""
    machine = this_machine()
    values = machine.check({remote_access.ENDPOINT: endpoint, remote_access.ADDRESS: address})
    theirs = remote_access.neighbour(values[remote_access.ADDRESS])
    private = output("wg", "genkey")
    own = remote_access.public_key(remote_access.own_key(machine.state))
    port = int(values[remote_access.ENDPOINT].rpartition(":")[2])
    text = remote_access.for_far_side(private, port, own, values[remote_access.ADDRESS], theirs)
    machine.change(
        {
            **values,
            remote_access.PEER: remote_access.public_key(private),
            remote_access.NETWORKS: f"{theirs.partition('/')[0]}/{128 if ':' in theirs else 32}",
        }
    )
    typer.echo("For the far side; it is shown this once, and kept nowhere:\n")
    typer.echo(text)
    typer.echo(remote_access.as_picture(text))


@remote.command()
def off() -> None:
    """End it: no tunnel, nothing dialled. The appliance's key stays."""
    rows = (remote_access.PEER, remote_access.ENDPOINT, remote_access.ADDRESS, remote_access.NETWORKS)
    this_machine().change(dict.fromkeys(rows, ""))
    typer.echo("Remote access is off.")


@remote.command()
def apply() -> None:
    """Have the tunnel as the settings say. For a unit, and for its timer, as a name may have another address by now."""
    machine = this_machine()
    try:
        # Not all of the settings: those of the archive, and who may sign in, are beyond the unit's sandbox.
        found = remote_access.wanted(machine.kept().of_effect(Effect.MACHINE))
    except UsageError as error:  # half set: nothing is dialled, and `pacs remote show` says why
        typer.echo(str(error), err=True)
        found = None
    changed = remote_access.down() if found is None else remote_access.up(found, remote_access.own_key(machine.state))
    if changed:
        run("systemctl", "--no-block", "restart", "pacs-firewall.service", accept=range(256))
