"""`pacs standby`: a second node that has all of this one, and takes over by a person's word."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pacs import clock
from pacs.backup.standby_files import StandbyFiles
from pacs.backup.standby_handover import HandOver
from pacs.backup.standby_pairing import Following, describe, leave, pair
from pacs.backup.standby_promotion import Promoted, Promotion, twin_of
from pacs.backup.standby_status import at_archive, at_standby
from pacs.backup.standby_tunnel import Tunnel
from pacs.backup.standby_volumes import standby_of
from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.instance import open_database, open_instance
from pacs.cli.restore_server import as_service, is_appliance, service_user, start_services, stopped
from pacs.cli.table import print_facts, print_table
from pacs.errors import AtWork, PacsError, StandbyError
from pacs.model.restore_progress import format_duration
from pacs.settings import Settings, load
from pacs.storage import outbound
from pacs.storage.holding import holding
from pacs.storage.lineage import LineageFiles

standby = typer.Typer(no_args_is_help=True, help="A second node that has all of this one, and can take over.")

log = logging.getLogger(__name__)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Host = Annotated[str, typer.Option(help="This node's name or address, as the other node reaches it.")]
Port = Annotated[int, typer.Option(help="The port of this node's SSH server.")]
User = Annotated[str | None, typer.Option(help="The user whom the other node logs in as; the service's.")]
Name = Annotated[str, typer.Option(help="What this node is to be called by the other; else its host name.")]
_LISTED = 50


@standby.command("offer")
def standby_offer(context: typer.Context, host: Host, port: Port = 22, user: User = None, name: Name = "") -> None:
    """On the node that is to be the standby: print its pairing text."""
    settings = load(data_of(context))
    with as_service(settings.data), open_database(settings) as database:
        typer.echo(describe(settings, database, user or service_user(settings), host, port, name).text())


@standby.command("pair")
def standby_pair(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="The pairing text of the other node; - for standard input.")],
    host: Host,
    port: Port = 22,
    user: User = None,
    name: Name = "",
) -> None:
    """On the archive: have the node of a pairing text as its standby; print the text that it is to be given."""
    settings = load(data_of(context))
    with as_service(settings.data), open_database(settings) as database:
        ours = describe(settings, database, user or service_user(settings), host, port, name)
        twin = pair(settings, database, _given(text))
    typer.echo(f"{twin.name} is the standby of this archive. On it: pacs standby follow TEXT. The text:", err=True)
    typer.echo(ours.text())


@standby.command("follow")
def standby_follow(
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(help="The pairing text of the archive; - for standard input; none: the known one.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """On the standby: copy the archive's database and follow it. What this node's own database has is gone then."""
    settings = load(data_of(context))
    if not yes and sys.stdin.isatty():
        typer.confirm("Make this node a standby? The database of its own is lost.", abort=True)
    given, began_s = _given(text) if text is not None else None, clock.monotonic_s()
    with _alone(settings):
        try:
            with stopped(settings) as server:
                twin = Following(settings, server, _tell).run(given)
        except PacsError:
            if is_appliance(settings):  # what it was it is yet: unless the copy was begun, when nothing starts
                start_services()
            raise
    took = format_duration(clock.monotonic_s() - began_s)
    typer.echo(f"This node follows {twin.name} now; the copy took {took}. `pacs standby status` shows how far it is.")
    if not is_appliance(settings):
        typer.echo("Start `pacs dev` again.")


@standby.command("run")
def standby_run(context: typer.Context) -> None:
    """Keep the way to the archive's database open: what systemd and `pacs dev` start on a standby."""
    settings = load(data_of(context))
    files, stop = StandbyFiles(settings.data), systemd.stop_on_signals()
    tunnel, told = Tunnel(settings.data, settings, twin_of(settings)), ""
    systemd.notify("READY=1")
    while not stop.is_set() and files.following() is not None:
        if not tunnel.is_running():
            why = tunnel.close()
            if why and why != told:  # once an outage
                log.error("the way to the archive's database ended: %s", why)
            told = why
            tunnel.start()
        stop.wait(1.0)
    systemd.notify("STOPPING=1")
    tunnel.close()


@standby.command("status")
def standby_status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how far the standby is behind, from either of the two."""
    settings = load(data_of(context))
    with as_service(settings.data):
        shown = _as_standby(settings) if StandbyFiles(settings.data).following() else _as_archive(settings)
    print_facts(shown, as_json)


@standby.command("hand-over")
def standby_hand_over(
    context: typer.Context,
    patience_s: Annotated[float, typer.Option(help="How long the standby may take to get the rest [s].")] = 300,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take it back: this node goes on.")] = False,
) -> None:
    """On the archive: take nothing more, and wait until the standby has all. Then it is promoted without a loss."""
    data = data_of(context)
    with as_service(data), open_instance(data) as instance:
        work = HandOver(instance.settings, instance.database, instance.volumes)
        if cancel:
            work.take_back()
            typer.echo("This node takes objects again.")
            return
        work.run(_tell, patience_s)
    typer.echo(f"{work.standby.name} has all. There: pacs standby promote")


@standby.command("promote")
def standby_promote(
    context: typer.Context,
    primary_is_off: Annotated[
        bool, typer.Option("--primary-is-off", help="The archive is off, and stays so: do not look whether it answers.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """On the standby: make it the archive. The other node is fenced when it comes back."""
    settings = load(data_of(context))
    began_s = clock.monotonic_s()
    if _is_promoted(settings):
        start_services()
        raise StandbyError("This node is the archive already. Its services were started.")
    _give_settings(settings)
    with as_service(settings.data):
        work = Promotion(settings, (lambda _words: None) if as_json else _tell)
        work.require_possible(primary_is_off)
        if not yes and sys.stdin.isatty():
            typer.confirm(f"Make this node the archive in the place of {work.twin.name}?", abort=True)
        done = work.run()
    if is_appliance(settings):
        start_services()
    _print_promoted(settings, done, clock.monotonic_s() - began_s, as_json)


@standby.command("release")
def standby_release(context: typer.Context) -> None:
    """After a promotion: let this node send again what it sends by itself."""
    data = data_of(context)
    with as_service(data):
        outbound.release(data)
    typer.echo("What waited is sent now.")


@standby.command("leave")
def standby_leave(
    context: typer.Context,
    lost: Annotated[
        bool, typer.Option("--lost", help="Its disks are lost: give up the objects that are nowhere else.")
    ] = False,
) -> None:
    """On the archive: have no standby any more. What the standby has stays there."""
    settings = load(data_of(context))
    with as_service(settings.data), open_database(settings) as database:
        left = leave(settings, database, lost)
    typer.echo("This archive has no standby any more. The other node may be wiped.")
    if left:
        typer.echo(f"{left} objects were only there. Have them sent again: `pacs restore missing` lists them.")


def _tell(what: str) -> None:
    with contextlib.suppress(OSError):  # whoever listened may have gone: it goes on
        typer.echo(f"{clock.now():%H:%M:%S}  {what} ...")


def _alone(settings: Settings) -> AbstractContextManager[None]:
    """Against another that copies or restores. Of `pacs dev` `stopped` sees to it."""
    if not is_appliance(settings):
        return contextlib.nullcontext()
    return holding(settings.data / "config", AtWork("Another command copies or restores this node. Wait for it."))


def _is_promoted(settings: Settings) -> bool:
    """Whether a promotion here came to its end, but for the start of the services."""
    files = StandbyFiles(settings.data)
    is_archive = files.following() is None and LineageFiles(settings.data).fenced() is None
    return is_appliance(settings) and files.is_alone() and is_archive


def _give_settings(settings: Settings) -> None:
    """Of an appliance's settings that root wrote, the archive's are to take the place: they are the service's."""
    file = settings.data / "config" / "pacs.toml"
    if is_appliance(settings) and file.exists():
        owner = (settings.data / "journal").stat()
        os.chown(file, owner.st_uid, owner.st_gid)


def _given(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _as_archive(settings: Settings) -> dict[str, Any]:
    found = standby_of(settings.data)
    if found is None:
        return {"twin": None, "is": "an archive without a standby"}
    with open_instance(settings.data) as instance:
        status = at_archive(settings, instance.database, found)
        absent = [str(instance.volumes.absent[each]) for each in found.volume_ids if each in instance.volumes.absent]
    return {
        "is": "the archive", "twin": found.name, "fenced": LineageFiles(settings.data).fenced(),
        "is_level": status.is_level and not absent, "objects": _lag(status.objects),
        "log": asdict(status.log) if status.log else None, "away": " ".join(absent) or None,
        "outbound_held": outbound.is_held(settings.data),
    }  # fmt: skip


def _as_standby(settings: Settings) -> dict[str, Any]:
    status, twin = at_standby(settings), twin_of(settings)
    return {
        "is": "the standby", "twin": twin.name, "step": status.step,
        "objects": _lag(status.objects) if status.objects else None,
        "log": asdict(status.log) if status.log else None, "settings_age_s": status.bundle_s,
    }  # fmt: skip


def _lag(lag: Any) -> dict[str, Any]:
    return {"waiting": lag.objects, "oldest_s": lag.oldest_s, "is_counted": lag.is_counted, "error": lag.last_error}


def _print_promoted(settings: Settings, done: Promoted, took_s: float, as_json: bool) -> None:
    if as_json:
        values = {"took_s": took_s, "epoch": done.mark.epoch, "totals": done.totals, "not_here": done.not_here}
        typer.echo(json.dumps(values, default=str))
        return
    known = done.totals
    typer.echo(
        f"This node is the archive, in epoch {done.mark.epoch}, after {format_duration(took_s)}: "
        f"{known['studies']:,} studies, {known['objects']:,} objects."
    )
    if done.not_here:
        objects = sum(row["objects"] for row in done.not_here)
        typer.echo(f"\n{objects} objects are on {twin_of(settings).name} only. They come when it is on, or send again:")
        print_table(
            ("device", "AE title", "study", "objects", "newest (UTC)"),
            [
                (row["device"] or "", row["calling_ae"] or "", row["study_instance_uid"], str(row["objects"]),
                 f"{row['arrived_at']:%Y-%m-%d %H:%M:%S}")
                for row in done.not_here[:_LISTED]
            ],
        )  # fmt: skip
    if done.kept:
        typer.echo(f"This node keeps its own: {', '.join(done.kept)}")
    typer.echo("Nothing is sent by itself before you agree: pacs standby release")
