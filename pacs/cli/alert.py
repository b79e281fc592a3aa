"""`pacs alert`: who is told what is wrong, beside the mailboxes of `pacs mail`, and a sign of life."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pacs.checks.registry import CHECKS
from pacs.cli.context import acting_as_owner, data_of
from pacs.cli.operate import results_of
from pacs.cli.table import print_facts
from pacs.errors import NotFound, UsageError
from pacs.jobs import alert_settings as settings_file
from pacs.jobs.alert_settings import Heartbeat, Part, Syslog, Webhook, alert_settings, webhook_secret
from pacs.jobs.alert_spool import Spool
from pacs.jobs.alert_way import AlertFailed
from pacs.jobs.alerts import Sent, hold, look_and_send, require_configured, send_test
from pacs.jobs.mail_settings import mail_settings
from pacs.storage.trial import require_no_trial

alert = typer.Typer(no_args_is_help=True, help="Alerts: what is wrong, told by mail, webhook and syslog.")
webhook = typer.Typer(no_args_is_help=True, help="A URL that alerts are posted to as signed JSON.")
syslog = typer.Typer(no_args_is_help=True, help="A syslog server.")
heartbeat = typer.Typer(no_args_is_help=True, help="A sign of life, for who notices when it stops.")
alert.add_typer(webhook, name="webhook")
alert.add_typer(syslog, name="syslog")
alert.add_typer(heartbeat, name="heartbeat")

_CaFile = Annotated[
    typer.FileBinaryRead | None, typer.Option(help="PEM: who signed the server's certificate, if no public one.")
]


@alert.command("show")
def alert_show(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show where alerts go (of URLs the host), how many wait, how the last sending went, and what is held."""
    data = data_of(context)
    found = _facts(data)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_facts(found)


def _facts(data: Path) -> dict[str, str]:
    spool, mail = Spool(data), mail_settings(data)
    state, others = spool.state(), alert_settings(data)
    hosts = {place[0] for place in replace(others, heartbeat=Heartbeat(), syslog=Syslog()).destinations()}
    beats = {place[0] for place in replace(others, webhook=Webhook(), syslog=Syslog()).destinations()}
    where = {
        "mail": ", ".join(mail.to) if mail else "",
        "webhook": "".join(hosts),
        "syslog": f"{others.syslog.host}, port {others.syslog.port_number}, {others.syslog.transport}"
        if others.syslog.host else "",
        "heartbeat": ", ".join(filter(None, (*beats, others.heartbeat.mail))),
    }  # fmt: skip
    found = {}
    for name, place in where.items():
        way = state.ways.get(name)
        waiting = len(spool.waiting(name))
        sent = f"{way.sent_at:%Y-%m-%d %H:%M} UTC" if way and way.sent_at else "never"
        found[name] = f"{place}; {waiting} wait; last sent {sent}" if place else "-"
        if place and way and way.error:
            found[name] += f"; {way.error}"
    found["last look"] = f"{state.looked_at:%Y-%m-%d %H:%M} UTC" if state.looked_at.year > 1 else "never"
    found["held"] = ", ".join(f"{name} until {until:%Y-%m-%d %H:%M} UTC" for name, until in state.held.items()) or "-"
    return found


@alert.command("test")
def alert_test(context: typer.Context) -> None:
    """Send an alert now, each way. Ends with 4, and the receivers' words, if one of them does not take it."""
    data = data_of(context)
    require_configured(data)
    with acting_as_owner(data / "config"):
        sent = send_test(data)
    for each in sent:
        typer.echo(f"{each.way}: {each.error or 'taken'}")
    _require_sent(sent)
    typer.echo("Look whether it arrives.")


@alert.command("run")
def alert_run(context: typer.Context) -> None:
    """Look at all checks, tell what is to be told, send what waits. For the timer."""
    data = data_of(context)
    require_configured(data)
    require_no_trial(data)
    _require_sent(look_and_send(data, results_of(data)))


@alert.command("configured")
def alert_configured(context: typer.Context) -> None:
    """End with 0 if anybody is to be told, with 9 if not, 14 in a trial copy. For the timer."""
    data = data_of(context)
    require_no_trial(data)
    require_configured(data)


@alert.command("hold")
def alert_hold(
    context: typer.Context,
    check: Annotated[str, typer.Argument(help="A check's name, as `pacs check` shows it.")],
    days: Annotated[float, typer.Option(help="For so many days; 0: tell again.", min=0, max=90)] = 1,
) -> None:
    """Tell nothing of a check for some days, as somebody is at it. `pacs check` goes on to show it."""
    if check not in CHECKS:
        raise NotFound(f"There is no check {check}. There are: {', '.join(CHECKS)}.")
    data = data_of(context)
    with acting_as_owner(data / "config"):
        hold(data, check, days)
    typer.echo(f"Nothing is told of {check} for {days:g} days." if days else f"{check} is told of again.")


@webhook.command("set")
def webhook_set(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="https://host/path")],
    ca_file: _CaFile = None,
    new_secret: Annotated[bool, typer.Option("--new-secret", help="Sign with a new secret from now on.")] = False,
) -> None:
    """Post alerts to a URL. `pacs alert webhook secret` shows what they are signed with."""
    data = data_of(context)
    with acting_as_owner(data / "config"):
        known = alert_settings(data).webhook
        settings_file.keep(
            data, "webhook", Webhook(url, known.generation + int(new_secret)), ca_file.read() if ca_file else None
        )
    _warn_if_clear(url)
    typer.echo("Kept. `pacs alert test` sends one.")


@webhook.command("secret")
def webhook_show_secret(context: typer.Context) -> None:
    """Print the secret that the receiver compares signatures with."""
    data = data_of(context)
    with acting_as_owner(data / "config"):
        typer.echo(webhook_secret(data, alert_settings(data).webhook).decode())


@webhook.command("off")
def webhook_off(context: typer.Context) -> None:
    """Post no more. What waits is dropped."""
    _off(data_of(context), "webhook")


@syslog.command("set")
def syslog_set(
    context: typer.Context,
    host: Annotated[str, typer.Argument(help="The server, named as its certificate names it.")],
    transport: Annotated[str, typer.Option(help="tls, tcp or udp.")] = "tls",
    port: Annotated[int, typer.Option(help="Its port; else 6514 with TLS, 514 without.")] = 0,
    ca_file: _CaFile = None,
) -> None:
    """Send alerts to a syslog server (RFC 5424)."""
    data = data_of(context)
    with acting_as_owner(data / "config"):
        value = Syslog(host, transport, port)  # type: ignore[arg-type]  # looked at there
        settings_file.keep(data, "syslog", value, ca_file.read() if ca_file else None)
    typer.echo("Kept. `pacs alert test` sends one.")


@syslog.command("off")
def syslog_off(context: typer.Context) -> None:
    """Send no more. What waits is dropped."""
    _off(data_of(context), "syslog")


@heartbeat.command("set")
def heartbeat_set(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="A URL that is asked for (GET) every five minutes.")] = "",
    mail: Annotated[str, typer.Option(help="A mailbox that gets a mail every day.")] = "",
    ca_file: _CaFile = None,
) -> None:
    """Give a sign of life, as long as checks are looked at and alerts go out."""
    data = data_of(context)
    if not url and not mail:
        raise UsageError("To whom? Give a URL, or --mail.")
    if mail and mail_settings(data) is None:
        raise UsageError("No mails can be sent yet. Say through which server: `pacs mail set`.")
    with acting_as_owner(data / "config"):
        settings_file.keep(data, "heartbeat", Heartbeat(url, mail), ca_file.read() if ca_file else None)
    typer.echo("Kept. Have whoever gets it tell you when it stops.")


@heartbeat.command("off")
def heartbeat_off(context: typer.Context) -> None:
    """Give no more signs of life."""
    _off(data_of(context), "heartbeat")


def _off(data: Path, part: Part) -> None:
    with acting_as_owner(data / "config"):
        settings_file.forget(data, part)
        for path in Spool(data).waiting(part):
            path.unlink()
    typer.echo(f"No more {part}.")


def _warn_if_clear(url: str) -> None:
    if url.startswith("http://"):
        typer.echo("Note: http:// goes over the network in clear. What is posted is signed, and everybody can read it.")


def _require_sent(sent: Sequence[Sent]) -> None:
    failed = [f"{each.way}: {each.error}" for each in sent if each.error]
    if failed:
        raise AlertFailed(" ".join(failed))
