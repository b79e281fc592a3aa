"""`pacs restore`: an archive brought back from a repository by its recovery sheet; `pacs restore status|missing`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from pacs import clock
from pacs.archive.volume_places import Given, wanted_volume
from pacs.backup import mark
from pacs.backup.keys import Keyring, MasterKey
from pacs.backup.repositories import Repository
from pacs.backup.restore import Restore, Restored
from pacs.backup.restore_room import Needed, needed, require_empty, require_room
from pacs.backup.restore_source import Choice, Source, choose, open_source, reopen, repository_of
from pacs.cli.context import data_of
from pacs.cli.restore_asking import is_trial, show_written
from pacs.cli.restore_server import is_appliance, service_of, stopped
from pacs.cli.restore_status import print_missing, restore_missing, restore_status
from pacs.cli.table import print_table
from pacs.cli.vault_way import PulledBy, at_vault
from pacs.cli.volume import options_of
from pacs.errors import UsageError
from pacs.index.volumes import REPOSITORY_TIER
from pacs.model.restore_progress import format_duration
from pacs.model.sizes import format_size
from pacs.settings import load

restore = typer.Typer(help="An archive brought back from a repository.", invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
#: What a repository is called until its archive's own name for it is known.
_NAME = "restored"
_LISTED = 50


Place = Annotated[
    str | None, typer.Option("--repository", help="Its place: a folder, sftp://user@host/path, or s3://bucket/prefix.")
]
Sheet = Annotated[
    typer.FileText | None,
    typer.Option(help="A file with the recovery sheet's key; - for standard input. Else it is asked for."),
]
Endpoint = Annotated[str | None, typer.Option(help="URL of the bucket's S3 API; else Amazon's.")]
Region = Annotated[str | None, typer.Option(help="The bucket's region.")]
Credentials = Annotated[
    typer.FileBinaryRead | None, typer.Option(help="TOML with a bucket's keys, or an SFTP server's password.")
]
Certificate = Annotated[
    typer.FileBinaryRead | None, typer.Option("--ca-file", help="PEM: who signed the endpoint's certificate.")
]
Others = Annotated[list[str] | None, typer.Option("--option", help="Another option of its kind, as timeout_s=60.")]


@restore.callback()
def restore_run(
    context: typer.Context,
    repository: Place = None,
    pulled_by: PulledBy = None,
    sheet: Sheet = None,
    point: Annotated[str | None, typer.Option(help="The recovery point; the newest if none is named.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Up to a moment, as 2026-11-22T10:15 (UTC), whatever the points say.")
    ] = None,
    to_the_end: Annotated[
        bool, typer.Option("--to-the-end", help="All that the repository has of the database's log.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and touch nothing.")] = False,
    trial: Annotated[
        bool, typer.Option("--trial", help="Beside the archive that goes on: that one hears nothing of it.")
    ] = False,
    gone: Annotated[
        bool, typer.Option("--the-old-one-is-gone", help="Though it wrote to the repository a moment ago.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to go on.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    credentials_file: Credentials = None,
    ca_file: Certificate = None,
    option: Others = None,
) -> None:
    """Bring an archive back onto this empty appliance. One that was ended goes on: `pacs restore` without a word."""
    if context.invoked_subcommand is not None:
        return
    data = data_of(context)
    said = _given(endpoint, region, credentials_file, ca_file, option)
    with (
        at_vault(data, repository, pulled_by, said) as (place, given),
        _source(data, place, given, sheet.read() if sheet else None) as (source, master),
    ):
        choice = _choice(data, source, point, _moment(time), to_the_end, is_named=place is not None)
        need = needed(source, choice)
        _show(source, choice, need)
        if dry_run:
            require_room(load(data), need)
            typer.echo("Nothing was touched.")
            return
        as_trial = is_trial(source, mark.begun(data), trial, gone, yes)
        _restore(data, source, choice, need, master, as_trial)


@restore.command("points")
def restore_points(
    context: typer.Context,
    repository: Place = None,
    pulled_by: PulledBy = None,
    sheet: Sheet = None,
    endpoint: Endpoint = None,
    region: Region = None,
    credentials_file: Credentials = None,
    ca_file: Certificate = None,
    option: Others = None,
    as_json: AsJson = False,
) -> None:
    """List the states that a repository has, oldest first; nothing is touched."""
    data, said = data_of(context), _given(endpoint, region, credentials_file, ca_file, option)
    with (
        at_vault(data, repository, pulled_by, said) as (place, given),
        _source(data, place, given, sheet.read() if sheet else None) as (source, _master),
    ):
        found = source.points()
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], default=str))
        return
    print_table(
        ("point", "moment (UTC)", "objects that had arrived", "on backup", "version"),
        [
            (each.name, f"{each.at:%Y-%m-%d %H:%M:%S}", f"{each.newest_object_key:,}", each.label, each.version)
            for each in found
        ],
    )


def _given(
    endpoint: str | None, region: str | None, credentials: BinaryIO | None, certificate: BinaryIO | None,
    option: list[str] | None,
) -> Given:  # fmt: skip
    options = {"endpoint": endpoint, "region": region, **options_of(option or [])}
    return Given(
        {key: value for key, value in options.items() if value is not None},
        credentials.read() if credentials else None,
        certificate.read() if certificate else None,
        on_system_disk=True,  # nothing is written there
    )


def _restore(
    data: Path, source: Source, choice: Choice, need: Needed, master: MasterKey | None, as_trial: bool
) -> None:
    settings = load(data)
    with stopped(settings) as server, mark.alone(data):
        if mark.begun(data) is None:
            require_empty(settings, server)
            require_room(settings, need)

        def tell(what: str) -> None:
            typer.echo(f"{clock.now():%H:%M:%S}  {what} ...")

        began = clock.monotonic_s()
        restored = Restore(data, source, choice, server, tell, master, as_trial).run()
        took = format_duration(clock.monotonic_s() - began)
    _print(restored, choice, took)
    if as_trial:
        typer.echo("THIS IS A TRIAL COPY: it ships nothing and is backed up nowhere. Shut it down in the end.")
    typer.echo("The services run again." if is_appliance(settings) else "Start `pacs dev` again.")


@contextmanager
def _source(
    data: Path, place: str | None, given: Given, sheet: str | None
) -> Iterator[tuple[Source, MasterKey | None]]:
    begun = mark.begun(data)
    if place is None:
        if begun is None:
            raise UsageError("Restore from where? Give --repository PLACE: a folder, sftp://... or s3://...")
        source, master = reopen(_at_home(data, repository_of(begun.repository)), Keyring.open(data)), None
        try:
            yield source, master
        finally:
            source.volume.close()
        return
    with tempfile.TemporaryDirectory(prefix="pacs-restore-") as folder:
        master = MasterKey.typed(sheet if sheet is not None else _asked())
        with service_of(data, Path(folder)):  # what it cannot read and open now, its services could not later
            repository = _repository(place, given, Path(folder))
            source = open_source(repository, master)
        try:
            yield source, master
        finally:
            source.volume.close()


def _at_home(data: Path, repository: Repository) -> Repository:
    """The repository of a restore that was begun: its secrets were kept then."""
    return replace(repository, credentials=data / "config" / "repositories" / f"{repository.name}.credentials")


def _repository(place: str, given: Given, folder: Path) -> Repository:
    """The repository at a place; its secrets in a folder of their own, until the restore keeps them."""
    row, _mount = wanted_volume(_NAME, place, REPOSITORY_TIER, given)
    credentials = folder / f"{_NAME}.credentials"
    for path, content in ((credentials, given.credentials), (folder / f"{_NAME}.pem", given.ca_certificate)):
        if content is not None:
            path.touch(mode=0o600)
            path.write_bytes(content)
    return Repository(_NAME, row.location, row.kind, "", dict(row.options), credentials=credentials)


def _asked() -> str:
    if not sys.stdin.isatty():
        raise UsageError("The recovery sheet's key is needed: --sheet FILE, or - for standard input.")
    return str(typer.prompt("Key of the recovery sheet, nine groups"))


def _choice(
    data: Path, source: Source, point: str | None, time: datetime | None, to_the_end: bool, is_named: bool
) -> Choice:
    if sum((point is not None, time is not None, to_the_end)) > 1:
        raise UsageError("Give one of --point, --time and --to-the-end.")
    begun = mark.begun(data)
    if begun is None or is_named or point or time or to_the_end:
        return choose(source, point, time, to_the_end)
    restored_to = datetime.fromisoformat(begun.restored_to)
    if begun.point:
        return choose(source, begun.point, None, False)
    return Choice(restored_to, time=None if begun.to_the_end else restored_to)


def _moment(words: str | None) -> datetime | None:
    if words is None:
        return None
    try:
        found = datetime.fromisoformat(words)
    except ValueError:
        raise UsageError(f"{words!r} is no moment. Write 2026-11-22T10:15, in UTC, or with +01:00.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _show(source: Source, choice: Choice, need: Needed) -> None:
    points = source.points()
    typer.echo(
        f"Repository of appliance {source.volume.about.appliance_id} at {source.repository.place}; its sheet is right."
    )
    if points:
        typer.echo(
            f"{len(points)} recovery points, from {points[0].at:%Y-%m-%d %H:%M} to {points[-1].at:%Y-%m-%d %H:%M} UTC."
        )
    name = f"point {choice.point.name} of version {choice.point.version}" if choice.point else "the database's log"
    typer.echo(f"Restored is the state of {choice.restored_to:%Y-%m-%d %H:%M:%S} UTC: {name}.")
    show_written(source.written_at())
    typer.echo(f"The database has {format_size(need.database_bytes)} in backup {need.label}.")


def _print(restored: Restored, choice: Choice, took: str) -> None:
    known = restored.totals
    typer.echo(
        f"Restored in {took} to {choice.restored_to:%Y-%m-%d %H:%M:%S} UTC: {known['studies']:,} studies, "
        f"{known['objects']:,} objects, {format_size(known['size_bytes'])}."
    )
    typer.echo("All is searchable, and served from the repository; it comes back behind: `pacs restore status`.")
    for row in restored.volumes.absent:
        typer.echo(f"Volume {row.name} at {row.location} does not answer: it is left as it was. `pacs volume list`.")
    for row in restored.volumes.gone:
        typer.echo(f"Volume {row.name} at {row.location} is gone; what was on it is in the repository.")
    if restored.lost:
        typer.echo(f"\n{restored.lost} objects are in no repository. Send them again (`pacs restore missing`):")
        print_missing(restored.to_send_again[:_LISTED])
    if choice.point is not None or choice.time is not None:
        typer.echo(f"\nWhat came after {choice.restored_to:%Y-%m-%d %H:%M:%S} UTC is not here. Send it again from:")
        print_table(
            ("device", "AE title", "last known sending (UTC)"),
            [
                (row["device"] or "", row["calling_ae"], f"{row['last_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S}")
                for row in restored.heard
            ],
        )


restore.command("status")(restore_status)
restore.command("missing")(restore_missing)
