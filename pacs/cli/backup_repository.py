"""`pacs backup repository`: where backups are kept."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from pacs.archive.volume_places import Given
from pacs.backup.cluster_verify import look_at
from pacs.backup.pulled import make_offer
from pacs.backup.repositories import KEEP_FULL, Repository, repositories, repository_named
from pacs.backup.repository_changes import RepositoryChanges, Wanted
from pacs.backup.shipping import Lag, lag_of
from pacs.cli.context import data_of
from pacs.cli.instance import Instance, open_instance
from pacs.cli.restore_server import service_user
from pacs.cli.table import print_facts, print_table
from pacs.cli.vault_way import PulledBy, at_vault
from pacs.cli.volume import options_of, print_findings
from pacs.errors import PacsError, UsageError, VolumeError
from pacs.index import volumes as rows
from pacs.settings import load
from pacs.storage.keyring import Keyring
from pacs.storage.kinds import Room
from pacs.storage.probing import Finding, probe

repository = typer.Typer(no_args_is_help=True, help="The repositories: where backups are kept.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="As `pacs backup repository list` shows.")]
Place = Annotated[
    str | None,
    typer.Option(help="An empty folder: a disk's or a mounted share's; sftp://user@host/path; or s3://bucket/prefix."),
]
Windows = Annotated[
    list[str] | None,
    typer.Option("--window", help="When it is written to: 22:00-06:00, or sat-sun 00:00-24:00. Several times."),
]
Bandwidth = Annotated[float | None, typer.Option("--bandwidth", min=0, help="At most so much is sent [MB/s]; 0: any.")]
Keep = Annotated[int | None, typer.Option("--keep", min=1, help="Full backups of the database that it keeps.")]


ScrubDays = Annotated[
    float | None,
    typer.Option("--scrub-days", min=0, help="How soon every object in it is read again; 0: as scrub_period_days."),
]


def _changes(instance: Instance) -> RepositoryChanges:
    return RepositoryChanges(instance.database, instance.settings.data, instance.volumes)


@repository.command("add")
def repository_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name for it: small letters, digits, hyphens.")],
    place: Place = None,
    pulled_by: PulledBy = None,
    window: Windows = None,
    bandwidth: Bandwidth = None,
    keep: Keep = None,
    on_system_disk: Annotated[
        bool, typer.Option("--on-system-disk", help="Even on the system's disk. For development and tests.")
    ] = False,
    endpoint: Annotated[str | None, typer.Option(help="URL of the bucket's S3 API; else Amazon's.")] = None,
    region: Annotated[str | None, typer.Option(help="The bucket's region.")] = None,
    credentials_file: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(
            help="TOML with a bucket's access_key_id and secret_access_key, or an SFTP server's password; - for "
            "standard input. A copy is kept."
        ),
    ] = None,
    ca_file: Annotated[
        typer.FileBinaryRead | None, typer.Option(help="PEM: who signed the endpoint's certificate. A copy is kept.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Another option of its kind, as timeout_s=60. Several times.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a place a repository, after a look at whether it keeps what it must. Shipping begins within a minute."""
    options = {"endpoint": endpoint, "region": region, **options_of(option or [])}
    given = Given(
        {key: value for key, value in options.items() if value is not None},
        credentials_file.read() if credentials_file else None,
        ca_file.read() if ca_file else None,
        on_system_disk,
    )
    data, wanted = data_of(context), Wanted(tuple(window or ()), _bytes_per_s(bandwidth), keep or KEEP_FULL)
    with at_vault(data, place, pulled_by, given) as (where, theirs), open_instance(data) as instance:
        if where is None:
            raise UsageError("Where is it to be? Give --place, or --pulled-by with the text of a vault.")
        added = _changes(instance).add(name, where, theirs, wanted)
    if as_json:
        typer.echo(json.dumps({"repository": _described(added.repository), "notes": added.notes}))
        return
    print_findings(added.findings)
    for note in added.notes:
        typer.echo(f"note: {note}")
    typer.echo(
        f"{name} is a repository now. Without the recovery sheet nobody can read it, you neither: print it with "
        "`pacs backup keys show`, and keep it away from the appliance."
    )


@repository.command("offer")
def repository_offer(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="This node's name or address, as the vault reaches it.")],
    port: Annotated[int, typer.Option(help="The port of this node's SSH server.")] = 22,
    user: Annotated[str | None, typer.Option(help="The user whom the vault logs in as; the service's.")] = None,
) -> None:
    """Print the text by which another appliance becomes the vault of this one: there `pacs vault add NAME TEXT`."""
    settings = load(data_of(context))
    typer.echo(make_offer(settings.data, user or service_user(settings), host, port).text())


@repository.command("set")
def repository_set(
    context: typer.Context,
    name: Name,
    window: Windows = None,
    bandwidth: Bandwidth = None,
    keep: Keep = None,
    scrub_days: ScrubDays = None,
) -> None:
    """Change when and how fast a repository is written to, what it keeps, and how often it is read.

    --window always: at any time.
    """

    def wanted(before: Repository) -> Repository:
        return replace(
            before,
            windows=before.windows if window is None else tuple(each for each in window if each != "always"),
            bandwidth_bytes_per_s=before.bandwidth_bytes_per_s if bandwidth is None else _bytes_per_s(bandwidth),
            keep_full=keep or before.keep_full,
            scrub_days=before.scrub_days if scrub_days is None else scrub_days or None,
        )

    with open_instance(data_of(context)) as instance:
        _changes(instance).change(name, wanted)
    typer.echo(f"{name} is changed; the worker follows it within a minute.")


@repository.command("list")
def repository_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the repositories, whether they are here, and how far behind each is."""
    with open_instance(data_of(context)) as instance:
        found = [_shown(instance, each) for each in repositories(instance.settings.data)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    print_table(
        ("name", "kind", "objects behind", "oldest", "window", "free", "place", "problem"),
        [
            (
                each["name"], each["kind"], _many(each["lag"]), _age(each["lag"]),
                ", ".join(each["windows"]) or "always", _free(each["room"]), each["place"], each["problem"],
            )
            for each in found
        ],
    )  # fmt: skip
    if not found:
        typer.echo("There is none. `pacs backup repository add NAME --place PLACE` makes one.")


@repository.command("show")
def repository_show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show all that is known of a repository, and what is on it."""
    with open_instance(data_of(context)) as instance:
        found = repository_named(instance.settings.data, name)
        shown = _shown(instance, found)
        with instance.database.transaction() as connection:
            shown["holdings"] = asdict(rows.holdings(connection, found.volume_id))
        here = instance.volumes.by_id.get(found.volume_id)
        shown["promise"] = asdict(here.promise) if here else None
    print_facts(shown, as_json)


@repository.command("remove")
def repository_remove(context: typer.Context, name: Name) -> None:
    """Give a repository up: nothing more is written to it. What is in it stays, and the sheet still opens it."""
    with open_instance(data_of(context)) as instance:
        left = _changes(instance).remove(name)
    typer.echo(f"{name} is no repository of this appliance any more; {left.copies} objects were left in it.")


@repository.command("verify")
def repository_verify(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which; else all of them.")] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Read all that is in it and compare digests. Takes long.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at repositories: identity, keys, room, and a file written and read back. Ends with 5 if one is not well."""
    data = data_of(context)
    with open_instance(data) as instance:
        chosen = [repository_named(data, name)] if name else repositories(data)
        found = {each.name: _verified(instance, each, everything) for each in chosen}
    if as_json:
        typer.echo(json.dumps({each: [asdict(finding) for finding in findings] for each, findings in found.items()}))
    else:
        for each, findings in found.items():
            typer.echo(f"{each}:")
            print_findings(findings)
    if bad := [each for each, findings in found.items() if not all(finding.is_well for finding in findings)]:
        raise VolumeError(f"Not well: {', '.join(bad)}. See above, and docs/operate/backup.md.")
    if not found:
        raise UsageError("There is no repository. `pacs backup repository add NAME --place PLACE` makes one.")


def _verified(instance: Instance, each: Repository, everything: bool) -> list[Finding]:
    try:
        here = instance.volumes.get(each.volume_id)
    except PacsError as error:
        return [Finding("identity", False, str(error))]
    changes = _changes(instance)
    findings = [*probe(here), *changes.look_at_keys(here), *changes.look_at_lock(each, here)]
    if everything and all(finding.is_well for finding in findings):
        findings.append(changes.read_all(each.volume_id, instance.settings.scrub_period_days))
        findings += look_at(instance.settings.data, each, Keyring.open(instance.settings.data))
    return findings


def _shown(instance: Instance, each: Repository) -> dict[str, Any]:
    shown: dict[str, Any] = {**_described(each), "room": None, "lag": None, "problem": ""}
    try:
        shown["lag"] = _lag(lag_of(instance.database, each.volume_id))
        here = instance.volumes.get(each.volume_id)
        shown["room"] = asdict(here.room())
        here.require_writable()
    except PacsError as error:
        shown["problem"] = str(error)
    return shown


def _lag(lag: Lag) -> dict[str, Any]:
    return {"objects": lag.objects, "oldest_s": lag.oldest_s, "is_counted": lag.is_counted}


def _described(each: Repository) -> dict[str, Any]:
    return {**asdict(each), "options": dict(each.options), "credentials": None}


def _bytes_per_s(megabytes_per_s: float | None) -> int | None:
    return int(megabytes_per_s * 1e6) if megabytes_per_s else None


def _many(lag: dict[str, Any] | None) -> str:
    return "-" if lag is None else f"{lag['objects']}{'' if lag['is_counted'] else ' or more'}"


def _age(lag: dict[str, Any] | None) -> str:
    return "-" if lag is None or lag["oldest_s"] is None else f"{lag['oldest_s'] / 60:.0f} min"


def _free(room: dict[str, Any] | None) -> str:
    if not room or Room(**room).free_bytes is None:
        return "-"
    return f"{room['free_bytes'] / 1e9:.1f} GB"
