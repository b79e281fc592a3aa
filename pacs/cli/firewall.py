"""`pacs machine firewall`: what comes in and goes out of this appliance (docs/operate/firewall.md). Runs as root."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pacs.cli.context import acting_as_owner
from pacs.errors import PacsError
from pacs.machine import firewall as walls
from pacs.machine import firewall_sources as sources
from pacs.machine import kept_settings
from pacs.machine.commands import output
from pacs.machine.firewall_policy import Site, Tunnel, openings
from pacs.machine.firewall_ruleset import TABLE
from pacs.machine.kept_settings import Kept
from pacs.machine.machine_settings import Effect
from pacs.machine.remote_access import INTERFACE, tunnel_of
from pacs.machine.storage import Places
from pacs.model.addresses import normalised

firewall = typer.Typer(help="What comes in, and what goes out.", no_args_is_help=True, pretty_exceptions_enable=False)

_LOOK_UP_S = 8.0
_LOOK_UPS_AT_ONCE = 16


@firewall.command()
def apply() -> None:
    """Open what settings and tables name, and nothing else. What cannot be asked now stays as it was."""
    places = Places()
    is_ready = (places.state / "volume.json").exists()
    site, gathered, may_call = _asked(places) if is_ready else _unasked()
    users = walls.users(places.state.stat().st_uid if is_ready else None)
    sessions = walls.sessions() if may_call else ()
    outcome = walls.apply(walls.FirewallFiles(), site, gathered, users, sessions, look_up)
    for problem in outcome.problems:
        typer.echo(problem, err=True)
    if outcome.changed:
        typer.echo("The firewall is changed. `pacs machine firewall show` shows what is open.")


@firewall.command()
def check() -> None:
    """See whether the rules in force are those that were applied."""
    walls.check(walls.FirewallFiles())
    typer.echo("The rules in force are ours.")


@firewall.command()
def show(
    as_rules: Annotated[bool, typer.Option("--rules", help="The rules in force, with their counters.")] = False,
) -> None:
    """Show what is open, to whom, and why."""
    if as_rules:
        typer.echo(output("nft", "list", "table", "inet", TABLE))
        return
    places, files = Places(), walls.FirewallFiles()
    known = walls.read_known(files)
    site = _asked(places)[0] if (places.state / "volume.json").exists() else _unasked()[0]
    found = openings(site, known.named.values(), known.addresses)
    typer.echo("In:")
    typer.echo(f"  DICOM  {_ports(found.dicom_ports)}  from {_listed(found.dicom_from)}")
    typer.echo("  HTTP   80, 443  from everywhere")
    typer.echo(f"  SSH    22  from {_listed(found.ssh_from)}")
    if site.tunnel:
        typer.echo(f"  remote access  {_ports(site.tunnel.ports)}  through the tunnel")
    typer.echo("Out:")
    typer.echo("  names (53), time (123, 4460), DHCP, ping")
    for each in (call for named in known.named.values() for call in named.calls):
        addresses = sorted(known.addresses.get(each.host, ()))
        found_at = f"  ({', '.join(addresses)})" if addresses else ""
        typer.echo(f"  {each.what}  {each.host} port {each.port}/{each.protocol}{found_at}")
    for port in found.anywhere:
        typer.echo(f"  the service, any address  port {port}/tcp: a place in the cloud, whose addresses change")


def look_up(hosts: Sequence[str]) -> dict[str, set[str]]:
    """Names' addresses, all asked for at once; none for one that has none, or that nobody answers for in time."""
    pool = ThreadPoolExecutor(max_workers=_LOOK_UPS_AT_ONCE, thread_name_prefix="resolver")
    asked = {host: pool.submit(socket.getaddrinfo, host, None, 0, socket.SOCK_STREAM) for host in hosts}
    wait(asked.values(), _LOOK_UP_S)
    pool.shutdown(wait=False, cancel_futures=True)
    found: dict[str, set[str]] = {}
    for host, answer in asked.items():
        with contextlib.suppress(OSError, UnicodeError, TimeoutError, CancelledError):
            found[host] = {normalised(str(row[4][0])) for row in answer.result(0)}
    return found


def _asked(places: Places) -> tuple[Site, sources.Gathered, bool]:
    from pacs import settings as settings_table  # here, as the boot path needs none of it

    kept = kept_settings.load(places.state)  # root's alone
    gathered = sources.Gathered()
    gathered.ask(sources.as_root(places.volumes, os.environ, kept))
    with acting_as_owner(places.state):
        settings = settings_table.load(Path(os.environ.get("PACS_DATA", str(places.state))))
        gathered.ask(sources.as_service(settings))
    site = sources.site_of(kept, settings.connections_per_address_max, walls.own_subnets(), walls.dicom_ports())
    site = replace(site, tunnel=_tunnel(kept, site.dicom_ports))
    return site, gathered, kept.value("administrators_call") == "on"


def _tunnel(kept: Kept, dicom_ports: tuple[int, ...]) -> Tunnel | None:
    """What comes in by remote access. Settings that cannot be used are told of elsewhere; then it is closed."""
    try:
        return tunnel_of(kept.of_effect(Effect.MACHINE), dicom_ports)
    except PacsError:
        return Tunnel(INTERFACE, ())


def _unasked() -> tuple[Site, sources.Gathered, bool]:
    """Without a state volume: the defaults, so that an administrator comes in and sees why."""
    gathered = sources.Gathered(problems={"settings": "the storage is not ready (systemctl status pacs-storage)"})
    return Site(("own",), ("own", "private"), walls.own_subnets()), gathered, True


def _ports(ports: tuple[int, ...]) -> str:
    return ", ".join(map(str, ports))


def _listed(networks: tuple[str, ...]) -> str:
    return ", ".join(networks) or "nowhere"
