"""`pacs worker run`: what systemd and `pacs dev` start."""

from __future__ import annotations

import typer

from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.instance import open_instance
from pacs.jobs.worker import Worker

worker = typer.Typer(no_args_is_help=True, help="The worker.")


@worker.command("run")
def worker_run(context: typer.Context) -> None:
    """Work in the background: move settled studies down, copy the journal."""
    stop = systemd.stop_on_signals()
    with open_instance(data_of(context)) as instance, instance.volumes.watched():
        systemd.notify("READY=1")
        Worker(instance.settings, instance.database, instance.journal, instance.volumes).run(stop)
