"""`pacs web run`: what systemd and `pacs dev` start."""

from __future__ import annotations

import socket

import typer
import uvicorn

from pacs.checks.check import Subject
from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.errors import SettingsError
from pacs.web.app import make_app

web = typer.Typer(no_args_is_help=True, help="The web service.")


@web.command("run")
def web_run(context: typer.Context, fd: systemd.Fd = None) -> None:
    """Serve the web pages on the socket of the settings."""
    with open_instance(data_of(context)) as instance, instance.volumes.watched():
        subject = Subject(instance.settings, instance.database, instance.volumes)
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
