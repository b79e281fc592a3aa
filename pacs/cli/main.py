"""`pacs`: every command, each a few lines over the functions that the console and the API will call too.

The data directory comes from `--data` or PACS_DATA. An expected error prints one line and ends with its exit code.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pacs import __version__, log
from pacs.cli import archive, backup, dev, machine, operate, services
from pacs.errors import PacsError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="The PACS appliance."
)
for module in (archive, backup, services):
    for name, noun in module.NOUNS.items():
        app.add_typer(noun, name=name)
app.add_typer(machine.machine, name="machine", help="What runs as root on the appliance.")
app.command("dev")(dev.dev)
app.command("check")(operate.check)
app.command("restore")(backup.restore)


@app.callback()
def options(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(envvar="PACS_DATA", help="The instance's data directory.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what goes on.")] = False,
) -> None:
    """The PACS appliance: archive, devices, backup and restore."""
    context.obj = data.absolute() if data else None
    log.set_up(to_journal="JOURNAL_STREAM" in os.environ, verbose=verbose)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """The entry point of `pacs`."""
    os.umask(0o027)  # images, dumps and keys are nobody else's
    try:
        app(standalone_mode=True)
    except PacsError as error:
        typer.echo(f"pacs: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
