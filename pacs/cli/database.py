"""`pacs database migrate`: before any service starts."""

from __future__ import annotations

import time

import typer

from pacs.cli.context import data_of
from pacs.errors import DatabaseUnavailable
from pacs.index import database as index
from pacs.settings import load
from pacs.storage.volume import read_identity

database = typer.Typer(no_args_is_help=True, help="The index's database.")

_DATABASE_PATIENCE_S = 60


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
