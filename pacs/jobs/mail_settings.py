"""Where mails go, as a person said it: DATA/config/mail.toml, beside it mail.password and mail.pem, mode 0600 each."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pacs.errors import SettingsError, UsageError
from pacs.storage import durable

Tls = Literal["starttls", "tls", "none"]
#: The usual port of each.
PORTS = {"starttls": 587, "tls": 465, "none": 25}
_ADDRESS = re.compile(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+")


@dataclass(frozen=True)
class MailSettings:
    """Which server takes the mails, how, from whom and to whom."""

    host: str
    to: tuple[str, ...]
    sender: str
    tls: Tls = "starttls"
    port: int = 0
    user: str = ""

    @property
    def port_number(self) -> int:
        """The port: the one that was given, or the usual one."""
        return self.port or PORTS[self.tls]


def _file(data: Path) -> Path:
    return data / "config" / "mail.toml"


def password_file(data: Path) -> Path:
    """Where the password is; it may not be there."""
    return _file(data).with_suffix(".password")


def certificate_file(data: Path) -> Path:
    """Where the certificate is that signed the server's, if it is none of a public authority; it may not be there."""
    return _file(data).with_suffix(".pem")


def mail_settings(data: Path) -> MailSettings | None:
    """The settings; None if there are none. Raise SettingsError if they cannot be used."""
    try:
        found = tomllib.loads(_file(data).read_text("utf-8"))
        return _checked(MailSettings(**{**found, "to": tuple(found["to"])}))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise SettingsError(f"{_file(data)} cannot be used ({error}). Set it again: `pacs mail set`.") from error


def keep(data: Path, settings: MailSettings, password: str | None, certificate: bytes | None) -> None:
    """Keep settings. password and certificate: None keeps those that are there, empty removes them.

    Raise UsageError if they cannot be used.
    """
    _checked(settings)
    for path, content in (
        (password_file(data), None if password is None else password.strip().encode()),
        (certificate_file(data), certificate),
    ):
        if content:
            durable.replace_file(path, content, 0o600)
        elif content is not None:
            path.unlink(missing_ok=True)
    texts = {"host": settings.host, "sender": settings.sender, "tls": settings.tls, "user": settings.user}
    lines = [f"{name} = {json.dumps(text)}" for name, text in texts.items()]
    lines += [f"port = {settings.port}", f"to = {json.dumps(list(settings.to))}"]
    durable.replace_file(_file(data), ("\n".join(lines) + "\n").encode(), 0o600)


def forget(data: Path) -> None:
    """No mails any more."""
    for path in (_file(data), password_file(data), certificate_file(data)):
        path.unlink(missing_ok=True)


def password_of(data: Path) -> str:
    """The password; empty if there is none."""
    with contextlib.suppress(FileNotFoundError):
        return password_file(data).read_text("utf-8")
    return ""


def require_mailbox(address: str) -> None:
    """Raise UsageError unless an address is a mailbox's."""
    if not _ADDRESS.fullmatch(address) or not address.isascii():
        raise UsageError(f"{address!r} is no address of a mailbox. Write it as it@hospital.example.")


def _checked(settings: MailSettings) -> MailSettings:
    for address in (*settings.to, settings.sender):
        require_mailbox(address)
    if not settings.to:
        raise UsageError("Nobody would get the mails. Give --to, once for each mailbox.")
    if settings.tls not in get_args(Tls):
        raise UsageError(f"{settings.tls!r} is no way to reach a mail server: starttls, tls or none.")
    if settings.tls == "none" and settings.user:
        raise UsageError("A password would go over the network in clear. Take --tls starttls or tls, or no user.")
    if not settings.host.isascii() or not settings.host or any(each.isspace() for each in settings.host):
        raise UsageError(f"{settings.host!r} is no mail server's name. Give its name as its certificate has it.")
    if not 0 <= settings.port < 65536:
        raise UsageError(f"{settings.port} is no port.")
    return settings
