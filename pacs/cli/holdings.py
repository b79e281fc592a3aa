"""`pacs holdings`: what this node holds, read by itself, and a certificate that another one holds the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pacs.archive.holdings import own_volumes, read_all, state
from pacs.archive.pace import Pace
from pacs.backup import certificate
from pacs.backup.keys import Keyring
from pacs.cli.context import acting_as_owner, data_of
from pacs.cli.instance import open_database
from pacs.cli.priority import giving_way
from pacs.cli.table import print_facts
from pacs.errors import DigestMismatch, UsageError
from pacs.index.database import Database
from pacs.model.sizes import format_size
from pacs.settings import Settings, load
from pacs.storage.holding import holding
from pacs.storage.read_log import ReadLog

holdings = typer.Typer(no_args_is_help=True, help="What this node holds, read by itself, and whether another has it.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@holdings.command("read")
def holdings_read(
    context: typer.Context,
    anew: Annotated[bool, typer.Option("--anew", help="Everything, not only what was not read before.")] = False,
    rate: Annotated[float, typer.Option(min=0, help="At most so much [MB/s]; 0: no limit.")] = 0,
) -> None:
    """Read every object's file on this node's own disks, past all caches. Ends with 10 if one is not whole.

    It can be ended at any moment, and goes on where it was."""
    with _log(context) as (settings, database, log), giving_way():
        log.begin(anew)
        done = read_all(own_volumes(settings, database), log, Pace(rate * 1e6 or None))
    typer.echo(f"{done.whole} files are whole; {done.read} of them ({format_size(done.read_bytes)}) were read now.")
    if done.damaged:
        raise DigestMismatch(f"{done.damaged} files are not whole. `pacs scrub run --all`, then `pacs repair list`.")


@holdings.command("state")
def holdings_state(context: typer.Context, as_json: AsJson = False) -> None:
    """Say what this node holds, of what it has read: objects, the digest of all their digests, what it lacks."""
    with _log(context) as (settings, database, log):
        said = state(settings.data, own_volumes(settings, database), log, database)
    print_facts(asdict(said), as_json)


@holdings.command("certify")
def holdings_certify(
    context: typer.Context,
    other: Annotated[
        str, typer.Argument(help="What `pacs holdings state --json` printed there: a file; - for standard input.")
    ],
) -> None:
    """Compare with what another node holds; print a certificate if both hold the same. Ends with 10 if not."""
    text = sys.stdin.read() if other == "-" else _read(Path(other)).decode("utf-8", "replace")
    theirs = certificate.parse_statement(text)
    with _log(context) as (settings, database, log):
        ours = state(settings.data, own_volumes(settings, database), log, database)
        typer.echo(certificate.certify(ours, theirs, Keyring.open(settings.data)), nl=False)


@holdings.command("verify")
def holdings_verify(context: typer.Context, file: Path) -> None:
    """Verify a certificate that this archive's key has signed. Ends with 12 if it does not."""
    content, data = _read(file), data_of(context)
    with acting_as_owner(data / "config"):
        found = certificate.verify(content, Keyring.open(data))
    typer.echo(f"{found['at']}: {found['says']}")
    for each in found["nodes"]:
        typer.echo(
            f"  {each['appliance_id']}: {each['objects']} objects, {format_size(each['size_bytes'])}, {each['digest']}"
        )


@contextmanager
def _log(context: typer.Context) -> Iterator[tuple[Settings, Database, ReadLog]]:
    """The instance's log of what was read, held against others."""
    settings = load(data_of(context))
    with acting_as_owner(settings.data / "config"), open_database(settings, may_be_standby=True) as database:
        log = ReadLog(settings.data)
        log.folder.mkdir(mode=0o750, exist_ok=True)
        with holding(log.folder, UsageError("Another `pacs holdings` is at work here. Wait for it.")):
            yield settings, database, log


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
