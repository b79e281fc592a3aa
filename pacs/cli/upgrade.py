"""`pacs upgrade`: a signed file into the other root slot, and the way back. Runs as root, on the appliance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pacs import __version__
from pacs.cli.context import data_of
from pacs.errors import PacsError, UsageError
from pacs.machine import slots, upgrade_file
from pacs.machine.identity import POSTGRESQL_VERSION
from pacs.machine.settling import size_of, this_system
from pacs.machine.slot_writing import Tell
from pacs.machine.slots import GrubEnvironment
from pacs.machine.trial import LIMIT_S
from pacs.machine.upgrading import COPY_BYTES_PER_S, Upgrading, alone, describe, retry
from pacs.storage.upgrade_record import UpgradeFiles

upgrade = typer.Typer(no_args_is_help=True, help="Another version in the other half of the system disk, and back.")

_LINE_EVERY_S = 10.0


@upgrade.command("apply")
def upgrade_apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="pacs-appliance-VERSION.upgrade of the release.")],
    allow_older: Annotated[bool, typer.Option("--allow-older", help="Also an older version than this one.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also the version that runs.")] = False,
    no_restart: Annotated[
        bool, typer.Option("--no-restart", help="Prepare it only: the next restart boots the new version.")
    ] = False,
    limit: Annotated[
        int, typer.Option(help="Minutes that the new version has to pass its selftest.", min=5, max=1440)
    ] = int(LIMIT_S // 60),
) -> None:
    """Check an upgrade file, write it to the idle slot, and restart into it.

    The archive works on until the restart. The new version stays if its selftest passes; else the machine comes back to
    this one by itself.
    """
    with alone(), _progress() as tell:
        work = _work(context)
        opened = upgrade_file.open_file(file, upgrade_file.trusted_keys(work.data))
        work.check(opened, allow_older, again, tell)
        record = work.apply(opened, limit * 60.0, tell)
    typer.echo(f"Version {record.target.version} is in slot {record.to_slot}, signed by {opened.signer}.")
    if record.target.schema != record.origin.schema:
        size_bytes = size_of(work.cluster)
        minutes = 1 + size_bytes / COPY_BYTES_PER_S / 60
        typer.echo(f"It copies the database first, {size_bytes / 1e9:.1f} GB: about {minutes:.0f} minutes.")
    if no_restart:
        typer.echo("It is tried at the next restart of the machine. To call it off: pacs upgrade back")
        return
    typer.echo("The machine restarts now; `pacs upgrade status` then says whether it passed.")
    _restart()


@upgrade.command("status")
def upgrade_status(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show what runs, and how the last upgrade went."""
    files = UpgradeFiles(data_of(context))
    here, record, kept = this_system(_version()), files.record(), files.kept()
    try:
        found = slots.find()
    except PacsError:
        found = None
    if as_json:
        values = {
            "running": asdict(here), "slot": found.running.name if found else "",
            "record": asdict(record) if record else None, "kept": asdict(kept) if kept else None,
        }  # fmt: skip
        typer.echo(json.dumps(values))
        return
    for line in describe(record, here, found, files):
        typer.echo(line)


@upgrade.command("back")
def upgrade_back(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Call off an upgrade that waits for its restart, or go back to the version before the last one."""
    with alone():
        work = _work(context)
        if not yes and not (sys.stdin.isatty() and typer.confirm("Go back? The machine restarts.")):
            raise UsageError("To go back, give --yes: the machine restarts.")
        typer.echo(work.back(_restart))


@upgrade.command("retry")
def upgrade_retry(context: typer.Context) -> None:
    """Try a system disk once more that was attached, did not pass, and was refused since."""
    with alone():
        typer.echo(retry(UpgradeFiles(data_of(context))))


@upgrade.command("trust")
def upgrade_trust(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A public key: pacs-appliance-VERSION.pub of another builder.")],
    yes: Annotated[bool, typer.Option("--yes", help="The fingerprint was compared.")] = False,
) -> None:
    """Trust another builder's upgrade files from now on. Whoever has its private half can replace this system."""
    try:
        name = upgrade_file.fingerprint(upgrade_file.parse_key(file.read_text("ascii")))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"The key's fingerprint is {name}. Is it the builder's?")):
        raise UsageError(f"The key's fingerprint is {name}. Compare it with the builder's, then give --yes.")
    upgrade_file.trust(data_of(context), file)
    typer.echo(f"Trusted: {name}.")


@upgrade.command("keys")
def upgrade_keys(context: typer.Context) -> None:
    """Show the keys whose upgrade files are taken."""
    for name, key in upgrade_file.trusted_keys(data_of(context)).items():
        typer.echo(f"{upgrade_file.fingerprint(key)}  {name}")


def _work(context: typer.Context) -> Upgrading:
    if os.geteuid() != 0:
        raise UsageError("This is root's to do: sudo pacs upgrade …")
    data = data_of(context)
    environment = GrubEnvironment()
    environment.read()  # a system disk from before there were two slots has none
    cluster = data / "postgresql" / str(POSTGRESQL_VERSION) / "main"
    return Upgrading(data, cluster, this_system(_version()), slots.find(), environment)


def _version() -> str:
    return os.environ.get("PACS_APPLIANCE_VERSION", __version__)


def _restart() -> None:
    subprocess.run(["systemctl", "--no-block", "reboot"], check=True)


@contextmanager
def _progress() -> Iterator[Tell]:
    """A bar on a terminal, a line now and then elsewhere, on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, transient=True) as bar:
        is_terminal = bar.console.is_terminal
        if not is_terminal:
            bar.stop()
        task, before, next_s = bar.add_task("looking", total=None), "", 0.0

        def tell(what: str, done: int, total: int) -> None:
            nonlocal before, next_s
            if is_terminal:
                bar.update(task, description=what, completed=done, total=total)
            elif what != before or time.monotonic() >= next_s:
                before, next_s = what, time.monotonic() + _LINE_EVERY_S
                typer.echo(f"{what}: {100 * done // max(total, 1)} %", err=True)

        yield tell
