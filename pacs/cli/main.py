"""`pacs`: every command, each a few lines over the functions that the console and the API will call too.

The data directory comes from `--data` or PACS_DATA. An expected error prints one line and ends with its exit code.

Only the modules of the command that is called are imported: most of a short command's time is imports, and an
appliance runs many at each boot.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from pacs import __version__, log
from pacs.cli.audited import audited
from pacs.errors import PacsError

#: Command or noun → the module of this package that has it under the same name.
COMMANDS = {
    "dev": "dev",
    "check": "operate",
    "selftest": "selftest",
    "support-bundle": "support_bundle",
    "holdings": "holdings",
    "fleet": "fleet",
    "restore": "restore",
    "device": "device",
    "refusal": "device",
    "conflict": "conflict",
    "study": "study",
    "index": "index",
    "reconcile": "reconcile",
    "scrub": "scrub",
    "repair": "repair",
    "tier": "tier",
    "volume": "volume",
    "capacity": "capacity",
    "backup": "backup",
    "drill": "drill",
    "commitment": "commitment",
    "tls": "tls",
    "dicom-user": "tls",
    "token": "token",
    "lineage": "lineage",
    "audit": "audit",
    "standby": "standby",
    "vault": "vault",
    "mail": "mail",
    "alert": "alert",
    "receiver": "receiver",
    "web": "web",
    "worker": "worker",
    "database": "database",
    "machine": "machine",
    "remote": "remote",
    "upgrade": "upgrade",
    "raid": "raid",
}


def make_app(names: Collection[str]) -> typer.Typer:
    """The application with these commands and nouns."""
    app = typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="The PACS appliance."
    )
    app.callback()(options)
    app.command()(version)
    for name in names:
        found = getattr(import_module(f"pacs.cli.{COMMANDS[name]}"), name.replace("-", "_"))
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def options(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(envvar="PACS_DATA", help="The instance's data directory.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what goes on.")] = False,
) -> None:
    """The PACS appliance: archive, devices, backup and restore."""
    context.obj = data.absolute() if data else None
    log.set_up(to_journal="JOURNAL_STREAM" in os.environ, verbose=verbose)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """The entry point of `pacs`."""
    os.umask(0o027)  # images, dumps and keys are nobody else's
    # One of the words is the command; that a folder may have a command's name only costs its import.
    called = [name for name in COMMANDS if name in sys.argv[1:]]
    with audited(sys.argv[1:]):
        try:
            make_app(called or COMMANDS)(standalone_mode=True)
        except PacsError as error:
            typer.echo(f"pacs: {error}", err=True)
            sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
