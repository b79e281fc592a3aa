"""`pacs mail`: to whom the appliance tells what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from pacs.cli.context import acting_as_owner, data_of
from pacs.cli.table import print_facts
from pacs.errors import NotFound
from pacs.jobs.alert_spool import Spool, WayState
from pacs.jobs.alert_way import AlertFailed
from pacs.jobs.alerts import send_test
from pacs.jobs.mail_settings import MailSettings, forget, keep, mail_settings, password_of

mail = typer.Typer(no_args_is_help=True, help="Mails to those who look after the appliance.")


@mail.command("set")
def mail_set(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The mail server, named as its certificate names it.")],
    to: Annotated[list[str], typer.Option(help="Who gets the mails; several times for several.")],
    sender: Annotated[str, typer.Option("--from", help="Whose mails they are.")],
    tls: Annotated[str, typer.Option(help="starttls, tls (from the first byte on) or none.")] = "starttls",
    port: Annotated[int, typer.Option(help="Its port; else 587, 465 or 25, as --tls says.")] = 0,
    user: Annotated[str, typer.Option(help="Whom to log in as; without it nobody logs in.")] = "",
    password_file: Annotated[
        typer.FileText | None,
        typer.Option(help="A file with the password; - for standard input. Else it is asked."),
    ] = None,
    ca_file: Annotated[
        typer.FileBinaryRead | None, typer.Option(help="PEM: who signed the server's certificate, if no public one.")
    ] = None,
) -> None:
    """Say where mails go, and to whom. Then try it: `pacs mail test`."""
    data = data_of(context)
    with acting_as_owner(data / "config"):
        password = _password(user, password_file.read() if password_file else None, password_of(data))
        settings = MailSettings(host, tuple(to), sender, tls, port, user)  # type: ignore[arg-type]  # looked at there
        keep(data, settings, password, _read(ca_file))
    typer.echo("Kept. `pacs mail test` sends one.")


def _password(user: str, given: str | None, known: str) -> str:
    if not user:
        return ""
    if given is None and not known and sys.stdin.isatty():
        return str(typer.prompt(f"Password of {user}", hide_input=True))
    return known if given is None else given


def _read(file: BinaryIO | None) -> bytes | None:
    return file.read() if file else None


@mail.command("show")
def mail_show(context: typer.Context) -> None:
    """Show where mails go, how many wait, and how the last sending went. The password is not shown."""
    data = data_of(context)
    settings, spool = _settings(data), Spool(data)
    state = spool.state().ways.get("mail", WayState())
    print_facts(
        {
            "server": f"{settings.host}, port {settings.port_number}, {settings.tls}",
            "user": settings.user or "-",
            "from": settings.sender,
            "to": ", ".join(settings.to),
            "waiting": str(len(spool.waiting("mail"))),
            "last sent": f"{state.sent_at:%Y-%m-%d %H:%M} UTC" if state.sent_at else "never",
            "error": state.error or "-",
        }
    )


@mail.command("test")
def mail_test(context: typer.Context) -> None:
    """Send a mail now. Ends with 4, and the server's words, if it is not taken."""
    data = data_of(context)
    settings = _settings(data)
    with acting_as_owner(data / "config"):
        (sent,) = send_test(data, "mail")
    if sent.error:
        raise AlertFailed(sent.error)
    typer.echo(f"{settings.host} has taken a mail to {', '.join(settings.to)}. Look whether it arrives.")


@mail.command("off")
def mail_off(context: typer.Context) -> None:
    """Send no more mails. What waits is dropped."""
    data = data_of(context)
    forget(data)
    for path in Spool(data).waiting("mail"):
        path.unlink()
    typer.echo("No more mails are sent.")


def _settings(data: Path) -> MailSettings:
    found = mail_settings(data)
    if found is None:
        raise NotFound("No mails are sent: nobody has said to whom. `pacs mail set` does (docs/operate/mail.md).")
    return found
