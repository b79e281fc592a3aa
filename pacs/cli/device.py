"""`pacs device|refusal`: who may talk to the archive, who waits to, and what was refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime
from typing import Annotated, Any

import typer

from pacs.archive import devices
from pacs.cli.context import data_of
from pacs.cli.instance import open_database
from pacs.cli.table import print_table
from pacs.index import arrivals, refusals
from pacs.index import devices as rows
from pacs.index.devices import Device
from pacs.model import uids
from pacs.settings import load
from pacs.storage.journal import Journal

device = typer.Typer(no_args_is_help=True, help="The devices that may talk to the archive.")
refusal = typer.Typer(no_args_is_help=True, help="What was refused, and why.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
All = Annotated[bool, typer.Option("--all", help="Those that were dismissed, too.")]
Networks = Annotated[
    list[str] | None, typer.Option("--network", help="A further network that it may call from (CIDR); repeatable.")
]
Aliases = Annotated[
    list[str] | None, typer.Option("--alias", help="A further AE title that it may call with; repeatable.")
]
CalledAs = Annotated[
    list[str] | None, typer.Option("--called-as", help="An AE title that it may call this archive by; repeatable.")
]
Syntaxes = Annotated[
    list[str] | None, typer.Option("--transfer-syntax", help="UID, best first, taken before all others; repeatable.")
]
CharacterSet = Annotated[
    str | None, typer.Option(help="Specific Character Set of its objects that say none, such as 'ISO_IR 100'.")
]
PduSize = Annotated[int | None, typer.Option("--pdu-size", help="Largest PDU for it [bytes]; 0: the setting's.")]
AssociationsMax = Annotated[int | None, typer.Option(help="Associations that it may have at once; 0: no limit.")]
Certificate = Annotated[
    str | None, typer.Option("--certificate-sha256", help="SHA-256 of the TLS certificate it must show, hexadecimal.")
]

OverTls = Annotated[bool | None, typer.Option("--tls/--no-tls", help="Whether it is called over TLS.")]


def _given(
    networks: list[str] | None,
    aliases: list[str] | None,
    called_as: list[str] | None,
    transfer_syntaxes: list[str] | None,
    character_set: str | None,
    pdu_size: int | None,
    associations_max: int | None,
    certificate: str | None,
    tls: bool | None,
) -> dict[str, Any]:
    """What options say of a device, without those that were not given. An empty text or 0 takes away."""
    lists = {
        "networks": networks, "aliases": aliases, "called_ae_titles": called_as, "transfer_syntaxes": transfer_syntaxes,
    }  # fmt: skip
    found: dict[str, Any] = {
        name: tuple(each for each in value if each) for name, value in lists.items() if value is not None
    }
    if character_set is not None:
        found["default_character_set"] = character_set
    if pdu_size is not None:
        found["pdu_size_bytes_max"] = pdu_size or None
    if associations_max is not None:
        found["associations_max"] = associations_max or None
    if tls is not None:
        found["tls"] = tls
    if certificate is not None:
        found["tls_certificate_sha256"] = certificate.replace(":", "").lower() or None
    return found


@device.command("add")
def device_add(
    context: typer.Context,
    name: str,
    ae_title: Annotated[str, typer.Option(help="Its AE title, 1 to 16 characters.")],
    host: Annotated[str, typer.Option(help="Its address or host name: it calls from there, and C-MOVE sends there.")],
    port: Annotated[int, typer.Option(help="Its DICOM port, for C-MOVE.")],
    network: Networks = None,
    alias: Aliases = None,
    called_as: CalledAs = None,
    transfer_syntax: Syntaxes = None,
    character_set: CharacterSet = None,
    pdu_size: PduSize = None,
    associations_max: AssociationsMax = None,
    certificate: Certificate = None,
    tls: OverTls = None,
) -> None:
    """Make a device known: it may store, query and be sent to."""
    data = data_of(context)
    given = _given(
        network, alias, called_as, transfer_syntax, character_set, pdu_size, associations_max, certificate, tls
    )
    with open_database(load(data)) as database:
        made = devices.add_device(database, Journal(data), Device(name, ae_title, host, port, **given))
    typer.echo(f"{made.name}: AE title {made.ae_title} at {made.host}:{made.port} is known now.")


@device.command("change")
def device_change(
    context: typer.Context,
    name: str,
    ae_title: Annotated[str | None, typer.Option(help="Its AE title.")] = None,
    host: Annotated[str | None, typer.Option(help="Its address or host name.")] = None,
    port: Annotated[int | None, typer.Option(help="Its DICOM port.")] = None,
    network: Networks = None,
    alias: Aliases = None,
    called_as: CalledAs = None,
    transfer_syntax: Syntaxes = None,
    character_set: CharacterSet = None,
    pdu_size: PduSize = None,
    associations_max: AssociationsMax = None,
    certificate: Certificate = None,
    tls: OverTls = None,
) -> None:
    """Change what is given; a repeatable option replaces all of its kind, an empty one takes them away."""
    data = data_of(context)
    given = _given(
        network, alias, called_as, transfer_syntax, character_set, pdu_size, associations_max, certificate, tls
    )
    named = {"ae_title": ae_title, "host": host, "port": port}
    given |= {key: value for key, value in named.items() if value is not None}
    with open_database(load(data)) as database:
        changed = replace(rows.device_named(database, name), **given)
        devices.change_device(database, Journal(data), changed)
    typer.echo(f"{name} is changed. It counts from its next association on.")


@device.command("list")
def device_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the devices."""
    with open_database(load(data_of(context))) as database:
        found = rows.list_devices(database)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
        return
    print_table(
        ("name", "AE titles", "host", "port", "networks"),
        [(d.name, ", ".join(d.ae_titles), d.host, str(d.port), ", ".join(d.networks)) for d in found],
    )


@device.command("show")
def device_show(context: typer.Context, name: str, as_json: AsJson = False) -> None:
    """Show all that is known of a device."""
    with open_database(load(data_of(context))) as database:
        found = asdict(rows.device_named(database, name))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key, value in found.items():
        shown = ", ".join(value) if isinstance(value, tuple) else value
        typer.echo(f"{key.replace('_', ' '):24} {'-' if shown in (None, '') else shown}")


@device.command("remove")
def device_remove(context: typer.Context, name: str) -> None:
    """Forget a device. Its studies stay."""
    data = data_of(context)
    with open_database(load(data)) as database:
        devices.remove_device(database, Journal(data), name)
    typer.echo(f"{name} is no longer known.")


@device.command("echo")
def device_echo(context: typer.Context, name: str) -> None:
    """Ask a device whether it answers (C-ECHO). Ends with 4 and the reason if it does not."""
    from pacs.net.echoing import echo  # here, as it imports all of pynetdicom

    settings = load(data_of(context))
    with open_database(settings) as database:
        found = rows.device_named(database, name)
    took_s = echo(settings, found)
    typer.echo(f"{name} answers as {found.ae_title} at {found.host}:{found.port}, in {took_s * 1000:.0f} ms.")


@device.command("pending")
def device_pending(context: typer.Context, as_json: AsJson = False, with_dismissed: All = False) -> None:
    """Show who was refused and could be accepted: who, from where, what was wrong, what it wanted."""
    with open_database(load(data_of(context))) as database:
        found = devices.pending(database, with_dismissed)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], default=str))
        return
    print_table(
        ("id", "AE title", "from", "what was wrong", "times", "first", "last", "it wanted"),
        [
            (
                str(each.number), each.calling_ae, each.address, _problems(each), str(each.count),
                _minute(each.first_at), _minute(each.last_at), ", ".join(each.wanted),
            )
            for each in found
        ],
    )  # fmt: skip


def _problems(caller: devices.Pending) -> str:
    words = [each for each in caller.problems if each != refusals.RefusalKind.CALLED_AE]
    words += [f"called us {title}" for title in caller.called_ae_titles]
    return ", ".join(words) + (f" (device {caller.device_name})" if caller.device_name else "")


@device.command("accept")
def device_accept(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="As `pacs device pending` shows.")],
    name: Annotated[str | None, typer.Option(help="A name for it; default its AE title in small letters.")] = None,
    port: Annotated[int | None, typer.Option(help="Its DICOM port, for C-MOVE; default 104.")] = None,
) -> None:
    """Make a caller known that was refused; of a known device, let it do what it was refused for."""
    data = data_of(context)
    with open_database(load(data)) as database:
        made = devices.accept(database, Journal(data), number, name, port)
    typer.echo(
        f"{made.name}: AE title {made.ae_title} at {made.host}:{made.port} is accepted. Let it send again. C-MOVE "
        "to it needs the port it listens on: `pacs device change NAME --port`."
    )


@device.command("dismiss")
def device_dismiss(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="As `pacs device pending` shows.")],
) -> None:
    """Take a caller off the list. It stays refused."""
    settings = load(data_of(context))
    with open_database(settings) as database:
        caller = devices.dismiss(database, Journal(settings.data), number)
    typer.echo(f"{caller.calling_ae} at {caller.address} stays refused, and is not shown any more (see --all).")


@device.command("arrivals")
def device_arrivals(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show what arrived last: when, from whom, what kind; nothing of a patient. In JSON who waits to be let in, too."""
    with open_database(load(data_of(context))) as database:
        found, count = arrivals.newest(database, limit), arrivals.objects_up_to(database)
        waiting = [asdict(each) for each in devices.pending(database)]
    lines = [{**row, "kind": uids.name_of(row["sop_class_uid"])} for row in found]
    if as_json:
        typer.echo(json.dumps({"objects": count, "newest": lines, "pending": waiting}, default=str))
        return
    print_table(
        ("arrived", "AE title", "from", "what", "bytes"),
        [(_minute(each["arrived_at"]), each["calling_ae"] or "-", each["peer"] or "-", each["kind"],
          str(each["size_bytes"])) for each in lines],
    )  # fmt: skip


@refusal.command("list")
def refusal_list(context: typer.Context, as_json: AsJson = False, with_dismissed: All = False) -> None:
    """Show every kind of refusal, the newest first: associations, presentation contexts, objects."""
    with open_database(load(data_of(context))) as database:
        found = refusals.list_refusals(database, with_dismissed)
    if as_json:
        typer.echo(json.dumps(found, default=str))
        return
    print_table(
        ("id", "AE title", "from", "what", "why", "times", "last", "SOP Instance UID"),
        [
            (
                str(row["refusal_key"]), row["calling_ae"], row["address"], row["kind"],
                f"{row['detail'][:7]} {row['reason']}" if row["kind"] == refusals.RefusalKind.OBJECT else row["reason"],
                str(row["count"]), _minute(row["last_at"]), row["sop_instance_uid"],
            )
            for row in found
        ],
    )  # fmt: skip


@refusal.command("dismiss")
def refusal_dismiss(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="As `pacs refusal list` shows.")],
) -> None:
    """Take a kind of refusal off the list and out of `pacs check`. It is counted on."""
    settings = load(data_of(context))
    with open_database(settings) as database:
        row = devices.dismiss_refusal(database, Journal(settings.data), number)
    typer.echo(f"Refusal {number} ({row['kind']}) is not shown any more (see --all).")


def _minute(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"
