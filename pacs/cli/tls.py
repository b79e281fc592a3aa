"""`pacs tls|dicom-user`: certificates for DICOM over TLS, and the users whose passcodes devices send over it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from pacs.archive.users import Users
from pacs.cli.context import acting_as_owner, data_of
from pacs.errors import UsageError
from pacs.machine.web_certificate import put_for_web
from pacs.net.certificate_files import look_at, put
from pacs.net.tls import CERTIFICATE, TRUSTED, certificates_in, check_files, sha256_of_pem
from pacs.settings import load
from pacs.storage import durable

tls = typer.Typer(no_args_is_help=True, help="Certificates for DICOM over TLS.")
dicom_user = typer.Typer(no_args_is_help=True, help="Users whose passcodes devices send (User Identity).")


@tls.command("show")
def tls_show(context: typer.Context) -> None:
    """Show the archive's own certificate and the ones it trusts, by SHA-256, and whether they can be used."""
    folder = load(data_of(context)).tls_folder
    for name in (CERTIFICATE, TRUSTED):
        path = folder / name
        for pem in certificates_in(path.read_text("utf-8")) if path.exists() else []:
            typer.echo(f"{name:16}{sha256_of_pem(pem)}")
    check_files(folder)
    typer.echo(f"The files in {folder} can be used.")


@tls.command("install")
def tls_install(
    context: typer.Context,
    key: Annotated[Path, typer.Argument(help="The private key, PEM, without a passphrase.")],
    certificate: Annotated[Path, typer.Argument(help="The certificate, PEM, then those of its issuers.")],
    only: Annotated[str, typer.Option(help="dicom or web; else it is for both.")] = "",
) -> None:
    """Put a key and certificate in the place of the archive's own, for DICOM and HTTPS. Looked at before anything is
    replaced; they count from the next connection on."""
    if only not in ("", "dicom", "web"):
        raise UsageError("--only is dicom or web.")
    settings = load(data_of(context))
    seen = look_at(key, certificate, socket.getfqdn() if (settings.data / "volume.json").exists() else "")
    texts = _read(key), _read(certificate)
    web = settings.data / "identity" / "tls"
    if only != "web":
        with acting_as_owner(settings.tls_folder):
            put(settings.tls_folder, *texts)
        typer.echo(f"Installed for DICOM: {sha256_of_pem(texts[1])}")
    if only != "dicom" and web.exists():
        put_for_web(web, *texts)
        typer.echo(f"Installed for HTTPS: {sha256_of_pem(texts[1])}")
    typer.echo(f"It is good for {seen.days_left:.0f} days. Nobody renews it but you; `pacs check` tells in time.")
    for note in seen.notes:
        typer.echo(f"Note: {note}", err=True)


@tls.command("ca")
def tls_ca(context: typer.Context) -> None:
    """Print the certificate of the appliance's own authority, for browsers and devices to trust."""
    path = load(data_of(context)).data / "identity" / "ca" / CERTIFICATE
    try:
        typer.echo(path.read_text("ascii"), nl=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. It is made when the appliance starts.") from error


@tls.command("trust")
def tls_trust(
    context: typer.Context, certificate: Annotated[Path, typer.Argument(help="A device's certificate, or a CA's; PEM.")]
) -> None:
    """Trust a certificate: a device's own, or the authority's that issued it. Prints its SHA-256."""
    folder = load(data_of(context)).tls_folder
    given = certificates_in(_read(certificate))
    if not given:
        raise UsageError(f"{certificate} holds no certificate in PEM. Convert it with `openssl x509`.")
    kept = certificates_in((folder / TRUSTED).read_text("utf-8")) if (folder / TRUSTED).exists() else []
    with acting_as_owner(folder):
        text = "".join(each + "\n" for each in dict.fromkeys((*kept, *given)))
        durable.replace_file(folder / TRUSTED, text.encode(), 0o640)
    for each in given:
        typer.echo(sha256_of_pem(each))


@dicom_user.command("add")
def dicom_user_add(
    context: typer.Context,
    name: str,
    passcode: Annotated[str, typer.Option(prompt=True, confirmation_prompt=True, hide_input=True)],
) -> None:
    """Make a user known, or change the passcode. From the first one on, a passcode that is sent must be right."""
    data = data_of(context)
    with acting_as_owner(data):
        Users(data).put(name, passcode)
    typer.echo(f"{name} is known now.")


@dicom_user.command("list")
def dicom_user_list(context: typer.Context) -> None:
    """Show the users."""
    for name in Users(data_of(context)).names():
        typer.echo(name)


@dicom_user.command("remove")
def dicom_user_remove(context: typer.Context, name: str) -> None:
    """Forget a user."""
    data = data_of(context)
    with acting_as_owner(data):
        Users(data).remove(name)
    typer.echo(f"{name} is no longer known.")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read. Is it PEM?") from error
