"""`pacs receiver|web|worker run`, `pacs database migrate`: what systemd and `pacs dev` start."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from typing import Annotated

import typer
import uvicorn

from pacs.checks.check import Subject
from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.errors import DatabaseUnavailable, SettingsError, UsageError
from pacs.index import database as index
from pacs.jobs.worker import Worker
from pacs.net.receiver import Receiver
from pacs.settings import load
from pacs.storage.volume import read_identity
from pacs.web.app import make_app

log = logging.getLogger(__name__)

receiver = typer.Typer(no_args_is_help=True, help="The DICOM receivers.")
web = typer.Typer(no_args_is_help=True, help="The web service.")
worker = typer.Typer(no_args_is_help=True, help="The worker.")
database = typer.Typer(no_args_is_help=True, help="The index's database.")
NOUNS = {"receiver": receiver, "web": web, "worker": worker, "database": database}

_DATABASE_PATIENCE_S = 60
Fd = Annotated[int | None, typer.Option(help="A listening socket's file descriptor; else systemd's.")]


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


@receiver.command("run")
def receiver_run(context: typer.Context, fd: Fd = None) -> None:
    """Serve DICOM associations on the sockets that systemd has bound."""
    stop = _stop_on_signals()
    listening = [socket.socket(fileno=fd)] if fd is not None else systemd.listening_sockets()
    if not listening:
        raise UsageError("No socket to listen on. Start it by pacs-dicom.socket, or give --fd.")
    settings = load(data_of(context))
    with open_instance(settings.data, connections_max=settings.associations_max + 2) as instance:
        serving = Receiver(instance.settings, instance.database, instance.store(), instance.retrieve())
        serving.serve(listening)
        systemd.notify("READY=1")
        stop.wait()
        systemd.notify("STOPPING=1")
        serving.stop()


@web.command("run")
def web_run(context: typer.Context, fd: Fd = None) -> None:
    """Serve the web pages on the socket of the settings."""
    with open_instance(data_of(context)) as instance:
        subject = Subject(instance.settings, instance.database, instance.by_tier)
        path = instance.settings.http_socket
        if fd is None and path is None:
            raise SettingsError("http_socket is not set, and no --fd is given.")
        config = uvicorn.Config(
            make_app(subject), fd=fd, uds=str(path) if fd is None else None, log_level="warning", access_log=False,
            server_header=False, log_config=None, lifespan="off",
        )  # fmt: skip
        server = _NotifyingServer(config)
        server.run()


class _NotifyingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        systemd.notify("READY=1")


@worker.command("run")
def worker_run(context: typer.Context) -> None:
    """Work in the background: move settled studies down, copy the journal."""
    stop = _stop_on_signals()
    with open_instance(data_of(context)) as instance:
        systemd.notify("READY=1")
        Worker(instance.settings, instance.database, instance.journal, instance.by_tier).run(stop)


@database.command("migrate")
def database_migrate(context: typer.Context) -> None:
    """Bring the database's schema up to this version. Data of a newer version are refused and not touched."""
    settings = load(data_of(context))
    read_identity(settings.data)
    opened = index.Database(settings.conninfo)
    try:
        for name in _patiently(opened):
            typer.echo(f"applied {name}")
    finally:
        opened.close()


def _patiently(opened: index.Database) -> list[str]:
    """Migrate; PostgreSQL that is still starting is waited for."""
    ends = time.monotonic() + _DATABASE_PATIENCE_S
    while True:
        try:
            return index.migrate(opened)
        except DatabaseUnavailable:
            if time.monotonic() > ends:
                raise
            time.sleep(0.5)
