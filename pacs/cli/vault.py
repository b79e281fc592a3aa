"""`pacs vault`: repositories of other appliances that this one keeps, and that they cannot erase."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pacs import clock
from pacs.backup.vault_keeping import Keeping
from pacs.backup.vaults import Vault, VaultFiles, fingerprint
from pacs.cli import systemd
from pacs.cli.context import data_of
from pacs.cli.table import print_table
from pacs.errors import AtWork, PacsError, UsageError
from pacs.settings import load
from pacs.storage.holding import holding
from pacs.storage.sftp_client import host_key_of

vault = typer.Typer(no_args_is_help=True, help="Repositories of other appliances that this one keeps.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="As `pacs vault list` shows.")]
KeepDays = Annotated[
    int | None, typer.Option("--keep-days", min=1, help="How long is kept what the owner removes or writes over.")
]
#: How long a vault may take to be let go of by what serves it [s].
_PATIENCE_S = 60.0


@vault.command("add")
def vault_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name for it: small letters, digits, hyphens.")],
    text: Annotated[
        str, typer.Argument(help="What `pacs backup repository offer` printed there; - for standard input.")
    ],
    place: Annotated[
        Path | None, typer.Option(help="An empty folder for it, as of a disk of its own. Of a known one: not needed.")
    ] = None,
    keep_days: KeepDays = None,
    address: Annotated[
        str, typer.Option("--from", help="The address from which this node calls the other; else it is looked up.")
    ] = "",
) -> None:
    """Keep the repository of another appliance; print the text that it is to be given. Of a known name: dial it there
    from now on, as an appliance that is to be restored from it."""
    given = sys.stdin.read() if text == "-" else text
    answer = VaultFiles(data_of(context)).add(name, given, place.absolute() if place else None, keep_days, address)
    typer.echo(
        "It is dialled from now on. On it: pacs backup repository add NAME --pulled-by TEXT. The text:", err=True
    )
    typer.echo(answer.text())


@vault.command("list")
def vault_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the vaults, and when the owner of each was last connected."""
    files = VaultFiles(data_of(context))
    found = [_shown(files, each) for each in files.vaults()]
    if as_json:
        typer.echo(json.dumps(found))
        return
    print_table(
        ("name", "owner at", "place", "free", "keeps [days]", "connected (UTC)", "problem"),
        [(each["name"], f"{each['host']}:{each['port']}", each["place"],
          "-" if each["free_bytes"] is None else f"{each['free_bytes'] / 1e9:.1f} GB", str(each["keep_days"]),
          (each["seen_at"] or "never")[:19], each["problem"]) for each in found],
    )  # fmt: skip
    if not found:
        typer.echo("There is none. `pacs vault add NAME TEXT --place FOLDER` makes one (docs/operate/vault.md).")


@vault.command("set")
def vault_set(
    context: typer.Context,
    name: Name,
    host: Annotated[str | None, typer.Option(help="Where its owner is now; the SSH server's key is asked for.")] = None,
    port: Annotated[int | None, typer.Option(help="The port of its owner's SSH server.")] = None,
    keep_days: KeepDays = None,
    pause: Annotated[bool | None, typer.Option("--pause/--go-on", help="Dial its owner no more, or again.")] = None,
) -> None:
    """Change where the owner of a vault is, how long is kept what it removes, and whether it is served at all."""
    files = VaultFiles(data_of(context))
    before = files.named(name)
    changed = replace(
        before, host=host or before.host, port=port or before.port, keep_days=keep_days or before.keep_days,
        is_paused=before.is_paused if pause is None else pause,
    )  # fmt: skip
    if (changed.host, changed.port) != (before.host, before.port):
        shown, _print = host_key_of(f"sftp://{changed.user}@{changed.host}:{changed.port}/x", {})
        changed = replace(changed, host_key=shown)
        typer.echo(f"{changed.host} shows the host key {shown.split()[0]} {fingerprint(shown)}. Compare it there.")
    files.keep(changed)
    typer.echo(f"{name} is changed.")


@vault.command("changes")
def vault_changes(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show by the hour what the owner of a vault removed or wrote over, all of which is here yet: an hour with many
    objects in it is when something went wrong there."""
    found = list(VaultFiles(data_of(context)).named(name).open().kept())
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], default=str))
        return
    print_table(
        ("hour (UTC)", "files", "of them objects", "size"),
        [(f"{each.hour:%Y-%m-%d %H:%M}", f"{each.files:,}", f"{each.objects:,}", f"{each.size_bytes / 1e6:.1f} MB")
         for each in found],
    )  # fmt: skip


@vault.command("rewind")
def vault_rewind(
    context: typer.Context,
    name: Name,
    to: Annotated[str, typer.Option(help="The moment, as 2026-11-22T10:15 (UTC).")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put what is in a vault back to what it was at a moment. What came since is put aside, and nothing is lost: one
    more rewind, to a later moment, takes it back. The vault is paused from then on, until it is told to go on."""
    files, moment = VaultFiles(data_of(context)), _moment(to)
    found = files.named(name)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Put {name} back to {moment:%Y-%m-%d %H:%M:%S} UTC?", abort=True)
    files.keep(replace(found, is_paused=True))
    folder = found.open()
    ends_s = clock.monotonic_s() + _PATIENCE_S
    while True:
        try:
            with holding(folder.place, AtWork(f"{name} is being served yet. Give the command again.")):
                done = folder.rewind(moment)
                break
        except AtWork:
            if clock.monotonic_s() > ends_s:
                raise
            time.sleep(0.2)
    typer.echo(f"{done.put_back} files were put back, {done.put_aside} put aside. {name} is paused: its owner is not")
    typer.echo(f"dialled before `pacs vault set {name} --go-on`, or `pacs vault add {name} TEXT` of another appliance.")


@vault.command("remove")
def vault_remove(context: typer.Context, name: Name) -> None:
    """Keep a repository no more: its owner is not dialled. What is in the vault stays, until you remove it."""
    files = VaultFiles(data_of(context))
    found = files.named(name)
    files.forget(name)
    typer.echo(f"{name} is kept no more. What it had is in {found.place} yet.")


@vault.command("run")
def vault_run(context: typer.Context) -> None:
    """Dial the owners, and serve them: what systemd starts where there is a vault."""
    settings = load(data_of(context))
    stop = systemd.stop_on_signals()
    keeping = Keeping(settings.data, settings.runtime_folder)
    systemd.notify("READY=1")
    while not stop.is_set():
        keeping.turn()
        stop.wait(1.0)
    systemd.notify("STOPPING=1")
    keeping.close()


def _shown(files: VaultFiles, each: Vault) -> dict[str, Any]:
    seen_s = files.seen_at_s(each.name)
    shown: dict[str, Any] = {
        **asdict(each), "keys": len(each.keys), "free_bytes": None, "problem": "paused" if each.is_paused else "",
        "seen_at": datetime.fromtimestamp(seen_s, UTC).isoformat() if seen_s else None,
    }  # fmt: skip
    try:
        shown["free_bytes"] = each.open().free_bytes()
    except PacsError as error:
        shown["problem"] = str(error)
    return shown


def _moment(words: str) -> datetime:
    try:
        found = datetime.fromisoformat(words)
    except ValueError:
        raise UsageError(f"{words!r} is no moment. Write 2026-11-22T10:15, in UTC, or with +01:00.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
