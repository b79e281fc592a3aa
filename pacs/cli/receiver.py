"""`pacs receiver run`: what systemd and `pacs dev` start."""

from __future__ import annotations

import socket

import typer

from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.errors import UsageError
from pacs.net.receiver import Receiver
from pacs.settings import load

receiver = typer.Typer(no_args_is_help=True, help="The DICOM receivers.")


@receiver.command("run")
def receiver_run(context: typer.Context, fd: systemd.Fd = None) -> None:
    """Serve DICOM associations on the sockets that systemd has bound."""
    stop = systemd.stop_on_signals()
    listening = [socket.socket(fileno=fd)] if fd is not None else systemd.listening_sockets()
    if not listening:
        raise UsageError("No socket to listen on. Start it by pacs-dicom.socket, or give --fd.")
    settings = load(data_of(context))
    with open_instance(
        settings.data, connections_max=settings.associations_max + 2, timeout_s=settings.database_timeout_s
    ) as instance:
        serving = Receiver(instance.settings, instance.database, instance.store(), instance.retrieve())
        serving.serve(listening)
        systemd.notify("READY=1")
        stop.wait()
        systemd.notify("STOPPING=1")
        serving.stop()
