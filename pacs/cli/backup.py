"""`pacs backup …`."""

from __future__ import annotations

import typer

from pacs.cli.backup_keys import keys
from pacs.cli.backup_repository import repository
from pacs.cli.backup_run import backup_configured, backup_list, backup_points, backup_run, backup_status

backup = typer.Typer(no_args_is_help=True, help="Backups.")
backup.add_typer(repository, name="repository")
backup.add_typer(keys, name="keys")
backup.command("configured")(backup_configured)
backup.command("run")(backup_run)
backup.command("list")(backup_list)
backup.command("status")(backup_status)
backup.command("points")(backup_points)
