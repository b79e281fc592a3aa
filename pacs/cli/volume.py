"""`pacs volume`: where the archive keeps its bytes."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pacs.archive.volume_changes import VolumeChanges
from pacs.archive.volume_places import AFAR, Given
from pacs.cli.context import data_of
from pacs.cli.instance import Instance, open_instance
from pacs.cli.table import print_facts, print_table
from pacs.errors import PacsError, UsageError, VolumeError
from pacs.index import volumes as rows
from pacs.index.volumes import Holdings, KnownVolume
from pacs.storage.kinds import Room
from pacs.storage.mounts import mount_of
from pacs.storage.probing import Finding, probe

volume = typer.Typer(no_args_is_help=True, help="The volumes: where the archive keeps its bytes.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="As `pacs volume list` shows.")]


def _changes(instance: Instance) -> VolumeChanges:
    return VolumeChanges(instance.database, instance.journal, instance.settings.data, instance.volumes)


@volume.command("add")
def volume_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name for it: small letters, digits, hyphens.")],
    location: Annotated[
        str, typer.Argument(help="An empty folder: a disk's or a mounted share's; or s3://bucket/prefix.")
    ],
    tier: Annotated[int, typer.Option(min=1, max=3, help="1: fast, receives; 2: large; 3: far.")],
    on_system_disk: Annotated[
        bool, typer.Option("--on-system-disk", help="Even on the system's disk. For development and tests.")
    ] = False,
    endpoint: Annotated[str | None, typer.Option(help="URL of the bucket's S3 API; else Amazon's.")] = None,
    region: Annotated[str | None, typer.Option(help="The bucket's region.")] = None,
    credentials_file: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(help="TOML with access_key_id and secret_access_key; - for standard input. A copy is kept."),
    ] = None,
    ca_file: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(help="PEM: who signed the endpoint's certificate. A copy is kept."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Another option of a share or bucket, as timeout_s=60. Several times.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a folder, share or bucket a volume of a tier, after a look at whether it keeps what a volume must."""
    options = {"endpoint": endpoint, "region": region, **options_of(option or [])}
    given = Given(
        {key: value for key, value in options.items() if value is not None},
        credentials_file.read() if credentials_file else None,
        ca_file.read() if ca_file else None,
    )
    with open_instance(data_of(context)) as instance:
        added = _changes(instance).add(name, location, tier, on_system_disk, given)
    if as_json:
        typer.echo(json.dumps(asdict(added)))
        return
    print_findings(added.findings)
    for note in added.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{name} is a volume of tier {tier} now. The services use it within seconds.")


@volume.command("list")
def volume_list(
    context: typer.Context,
    with_retired: Annotated[bool, typer.Option("--all", help="Those that are retired, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the volumes, how full they are, and whether they are here."""
    with open_instance(data_of(context)) as instance:
        found = [_described(instance, row) for row in rows.list_volumes(instance.database, with_retired)]
        days = instance.settings.scrub_period_days
    if as_json:
        typer.echo(json.dumps(found))
        return
    print_table(
        ("name", "tier", "kind", "state", "used", "free", "read every", "location", "problem"),
        [
            (
                each["name"], str(each["tier"]), each["kind"], each["state"], _percent(each["room"]),
                _gigabytes(each["room"]), f"{each['scrub_days'] or days:g} days", each["location"], each["problem"],
            )
            for each in found
        ],
    )  # fmt: skip


@volume.command("show")
def volume_show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show all that is known of a volume, what it promises, and what is on it."""
    with open_instance(data_of(context)) as instance:
        row = rows.volume_named(instance.database, name)
        shown = _described(instance, row)
        with instance.database.transaction() as connection:
            shown["holdings"] = asdict(rows.holdings(connection, row.volume_id))
        here = instance.volumes.by_id.get(row.volume_id)
        shown["promise"] = asdict(here.promise) if here else None
    print_facts(shown, as_json)


@volume.command("set")
def volume_set(
    context: typer.Context,
    name: Name,
    scrub_days: Annotated[
        float, typer.Option(min=0, help="How soon every copy there is read again; 0: as scrub_period_days.")
    ],
) -> None:
    """Say how often a volume is read through: what is read from a bucket may cost money."""
    with open_instance(data_of(context)) as instance:
        _changes(instance).set_scrub_days(name, scrub_days or None)
        days = scrub_days or instance.settings.scrub_period_days
    typer.echo(f"Every copy on {name} is read within {days:g} days from now on.")


@volume.command("drain")
def volume_drain(
    context: typer.Context,
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Take it into service again.")] = False,
) -> None:
    """Have a volume emptied: nothing new is placed there, and what is there moves to others."""
    with open_instance(data_of(context)) as instance:
        changes = _changes(instance)
        left = changes.undrain(name) if undo else changes.drain(name)
    if undo:
        typer.echo(f"{name} is in service again.")
    else:
        typer.echo(
            f"{name} drains: {_words(left)} to move. `pacs volume show {name}` tells how much is left; when nothing "
            f"is, `pacs volume retire {name}`."
        )


@volume.command("retire")
def volume_retire(
    context: typer.Context,
    name: Name,
    leave_copies: Annotated[
        bool, typer.Option("--leave-copies", help="Even with copies on it, if each object has a good one elsewhere.")
    ] = False,
) -> None:
    """Give up a volume that was emptied. Its disk may then be taken away."""
    with open_instance(data_of(context)) as instance:
        left = _changes(instance).retire(name, leave_copies)
    what = f" {_words(left)} were left there, and count no more." if left.copies else ""
    typer.echo(f"{name} is retired.{what} Its disk may be taken away.")


@volume.command("verify")
def volume_verify(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which; else all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at volumes: identity, mount, room, and a file written and read back. Ends with 5 if one is not well."""
    with open_instance(data_of(context)) as instance:
        chosen = [rows.volume_named(instance.database, name)] if name else list(instance.volumes.rows)
        found = {row.name: _verified(instance, row) for row in chosen}
    if as_json:
        typer.echo(json.dumps({each: [asdict(finding) for finding in findings] for each, findings in found.items()}))
    else:
        for each, findings in found.items():
            typer.echo(f"{each}:")
            print_findings(findings)
    bad = [each for each, findings in found.items() if not all(finding.is_well for finding in findings)]
    if bad:
        raise VolumeError(f"Not well: {', '.join(bad)}. See above, and docs/operate/volumes.md.")


def _verified(instance: Instance, row: KnownVolume) -> list[Finding]:
    if row.state == "retired":
        return [Finding("state", True, "retired: not looked at")]
    here = instance.volumes.by_id.get(row.volume_id)
    if here is None:
        return [Finding("identity", False, str(instance.volumes.absent.get(row.volume_id)))]
    findings = probe(here)
    if row.kind not in AFAR:
        mount = mount_of(Path(row.location))
        why_not = mount.why_it_may_not_receive if row.tier == 1 else ""
        seen = f"{mount.source}, {mount.file_system}, {','.join(sorted(mount.options))}"
        findings.append(Finding("mount", not why_not, why_not or seen))
    promised = [word for word in ("fsyncs", "renames", "lists_all", "knows_room") if getattr(here.promise, word)]
    findings.append(Finding("promise", True, f"{row.kind}: {', '.join(promised).replace('_', ' ')}"))
    return findings


def _described(instance: Instance, row: KnownVolume) -> dict[str, Any]:
    shown: dict[str, Any] = {**asdict(row), "options": dict(row.options), "room": None, "problem": ""}
    if row.state == "retired":
        return shown
    try:
        here = instance.volumes.get(row.volume_id)
        shown["room"] = asdict(here.room())
        here.require_writable()
    except PacsError as error:
        shown["problem"] = str(error)
    return shown


def options_of(words: list[str]) -> dict[str, Any]:
    """Options written as name=value, the value as in TOML; what is no TOML is text."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--option {word}: write it as name=value.")
        try:
            found[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = value
    return found


def print_findings(findings: list[Finding]) -> None:
    print_table(("", "", ""), [("ok" if each.is_well else "NOT WELL", each.what, each.seen) for each in findings])


def _percent(room: dict[str, Any] | None) -> str:
    return f"{Room(**room).used_percent:.0f} %" if room else "-"


def _gigabytes(room: dict[str, Any] | None) -> str:
    if not room or room["free_bytes"] is None:
        return "-"
    return f"{room['free_bytes'] / 1e9:.1f} GB"


def _words(left: Holdings) -> str:
    return f"{left.copies} copies, {left.size_bytes / 1e9:.2f} GB"
