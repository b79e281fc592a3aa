"""`pacs machine certificates`: renewed by the own authority, or by an ACME server. For a timer, and by hand.

Registered in pacs.cli.machine, whose boot path must need nothing of the service's libraries: no import of them here.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import typer

from pacs.cli.machine_settings import this_machine
from pacs.machine import authority
from pacs.machine.acme import Acme
from pacs.machine.commands import output, run
from pacs.machine.screen import addresses
from pacs.machine.web_certificate import put_for_web, renew_own
from pacs.net.certificate_files import put


def register(machine: typer.Typer) -> None:
    """Add the commands of this module."""
    machine.command("certificates")(certificates)


def certificates() -> None:
    """Renew the certificates for HTTPS and DICOM that are near their end, or for another name than this machine's."""
    machine = this_machine()
    values, identity = machine.values(), machine.state / "identity"
    web, dicom = identity / "tls", identity / "dicom-tls"
    acme = Acme(values["acme_directory"], values["acme_mail"], socket.gethostname(), identity / "acme")
    if acme.directory:
        _from_acme(acme, web, dicom)
        return
    own = addresses(json.loads(output("ip", "-json", "address", "show", "up")))
    if renew_own(web, authority.WEB_DAYS, (socket.gethostname(), "pacs", "localhost", *own), acme.chain):
        typer.echo("The certificate for HTTPS is new.")
    if renew_own(dicom, authority.DICOM_DAYS, former=acme.chain):
        typer.echo("The certificate for DICOM is new.")


def _from_acme(acme: Acme, web: Path, dicom: Path) -> None:
    if not acme.is_due(web):
        return
    run("systemctl", "restart", "pacs-firewall.service", accept=range(256))  # the addresses of today
    acme.ask()
    pair = acme.key.read_text("ascii"), acme.chain.read_text("ascii")
    put_for_web(web, *pair)
    put(dicom, *pair)
    typer.echo(f"The ACME server issued a certificate for {acme.host_name}.")
