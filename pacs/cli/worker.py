"""`pacs worker run`: what systemd and `pacs dev` start."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer

from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.errors import PacsError
from pacs.jobs.worker import Worker
from pacs.model.audit import event
from pacs.storage.acting import actor
from pacs.storage.audit import AuditLog

worker = typer.Typer(no_args_is_help=True, help="The worker.")


@worker.command("run")
def worker_run(context: typer.Context) -> None:
    """Work in the background: move settled studies down, copy the journal."""
    stop = systemd.stop_on_signals()
    with open_instance(data_of(context)) as instance, instance.volumes.watched():
        systemd.notify("READY=1")
        _note(instance.settings.data, "started")
        Worker(instance.settings, instance.database, instance.journal, instance.volumes).run(stop)
        _note(instance.settings.data, "stopped")


def _note(data: Path, what: str) -> None:
    with contextlib.suppress(PacsError):  # the check `audit` tells of a log that cannot be written
        AuditLog(data).append([event(what, actor(), text="worker")])
