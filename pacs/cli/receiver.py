"""`pacs receiver run`: what systemd and `pacs dev` start."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from pacs.archive.lineage import Lineage
from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.errors import UsageError
from pacs.net.conformance import statement
from pacs.net.receiver import Receiver
from pacs.settings import load

receiver = typer.Typer(no_args_is_help=True, help="The DICOM receivers.")


#: The name of the sockets whose connections are TLS, in pacs-dicom-tls.socket.
TLS_NAME = "dicom-tls"


@receiver.command("conformance")
def receiver_conformance(context: typer.Context) -> None:
    """Print the DICOM conformance statement, with this instance's settings."""
    from pacs.web.conformance import sections  # here, as receivers need nothing of the web

    settings = load(data_of(context))
    typer.echo(statement(settings, sections(settings)), nl=False)


@receiver.command("run")
def receiver_run(
    context: typer.Context,
    fd: systemd.Fd = None,
    tls_fd: Annotated[int | None, typer.Option(help="The same, for TLS.")] = None,
) -> None:
    """Serve DICOM associations on the sockets that systemd has bound."""
    stop = systemd.stop_on_signals()
    named = systemd.listening_sockets()
    if fd is not None:
        named = [("dicom", socket.socket(fileno=fd))]
    if tls_fd is not None:
        named.append((TLS_NAME, socket.socket(fileno=tls_fd)))
    if not named:
        raise UsageError("No socket to listen on. Start it by pacs-dicom.socket, or give --fd.")
    settings = load(data_of(context))
    with (
        open_instance(
            settings.data, connections_max=settings.associations_max + 5, timeout_s=settings.database_timeout_s
        ) as instance,
        instance.volumes.watched(),
    ):
        Lineage(settings.data, instance.database, instance.volumes).look_for_fence()
        serving = Receiver(
            instance.settings, instance.database, instance.store(), instance.retrieve(), instance.verifier()
        )
        serving.serve(
            [each for name, each in named if name != TLS_NAME], [each for name, each in named if name == TLS_NAME]
        )
        systemd.notify("READY=1")
        stop.wait()
        systemd.notify("STOPPING=1")
        serving.stop()
