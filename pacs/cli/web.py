"""`pacs web run`: what systemd and `pacs dev` start."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import typer
import uvicorn
from starlette.routing import Route

from pacs.archive.lineage import Lineage
from pacs.archive.metadata import Metadata
from pacs.archive.outgoing import Transcoding
from pacs.archive.receiving_session import ReceivingSession
from pacs.checks.check import Subject
from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.instance import Instance, open_instance
from pacs.errors import SettingsError
from pacs.model.audit import event
from pacs.storage.acting import actor
from pacs.storage.audit_writer import AuditWriter
from pacs.web.access import Access
from pacs.web.app import make_app
from pacs.web.dicomweb import routes
from pacs.web.service import Service
from pacs.web.stow import Stow
from pacs.web.trail import WebTrail

#: More than requests that ask at once, of which each has a connection for a statement only.
_CONNECTIONS_MAX = 16
#: How long a statement may take, a search above all [s]; and how long requests have to end when the service stops [s].
_STATEMENT_TIMEOUT_S, _PATIENCE_S = 60.0, 20
# A traceback for each frame that a codec refuses, and more; what comes of it is logged where it counts.
for _name in ("pydicom", "openjpeg", "PIL", "python_multipart"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

web = typer.Typer(no_args_is_help=True, help="The web service.")


@web.command("run")
def web_run(context: typer.Context, fd: systemd.Fd = None) -> None:
    """Serve the web pages and DICOMweb on the socket of the settings."""
    data = data_of(context)
    with (
        open_instance(data, connections_max=_CONNECTIONS_MAX, timeout_s=_STATEMENT_TIMEOUT_S) as instance,
        instance.volumes.watched(),
        dicomweb_of(instance) as routes,
    ):
        subject = Subject(instance.settings, instance.database, instance.volumes)
        path = instance.settings.http_socket
        if fd is None and path is None:
            raise SettingsError("http_socket is not set, and no --fd is given.")
        config = uvicorn.Config(
            make_app(subject, routes), fd=fd, uds=str(path) if fd is None else None, log_level="warning",
            access_log=False, server_header=False, log_config=None, lifespan="off", proxy_headers=False,
            timeout_graceful_shutdown=_PATIENCE_S,
        )  # fmt: skip
        server = _NotifyingServer(config)
        server.run()


@contextmanager
def dicomweb_of(instance: Instance) -> Iterator[list[Route]]:
    """The routes of DICOMweb over an instance."""
    settings, database = instance.settings, instance.database
    Lineage(settings.data, database, instance.volumes).look_for_fence()
    audit, session = AuditWriter(settings.data), ReceivingSession(database)
    trail = WebTrail(audit, database, settings.ae_title)
    retrieve, transcoding = instance.retrieve(), Transcoding(settings.transcode_size_bytes_max)
    access = Access(settings.data, database, audit, settings.http_socket is not None)
    metadata = Metadata(retrieve, instance.volumes, transcoding)
    service = Service(settings, database, retrieve, instance.store(), transcoding, metadata, access, trail)
    audit.note(event("started", actor(), text="DICOMweb"))
    try:
        yield routes(service, Stow(service, session))
    finally:
        trail.stop()
        session.close()
        audit.note(event("stopped", actor(), text="DICOMweb"))
        audit.stop()


class _NotifyingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        systemd.notify("READY=1")
