"""Where alerts go beside the mailboxes, as a person said it: DATA/config/alerts.toml, mode 0600, and beside it the
certificates that signed the receivers': alerts.webhook.pem, alerts.syslog.pem, alerts.heartbeat.pem.

The webhook's secret is not here: it comes from the appliance's keyring, so that a restored appliance signs as before.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pacs.errors import SettingsError, UsageError
from pacs.jobs.mail_settings import require_mailbox
from pacs.storage import durable
from pacs.storage.keyring import Keyring

Transport = Literal["tls", "tcp", "udp"]
#: RFC 5425 4.1, RFC 5426 3.3; TCP has none of its own, and 514 is the custom.
PORTS = {"tls": 6514, "tcp": 514, "udp": 514}
Part = Literal["webhook", "syslog", "heartbeat"]


@dataclass(frozen=True)
class Webhook:
    """A URL that alerts are posted to. generation: which of the keyring's secrets signs them."""

    url: str = ""
    generation: int = 1


@dataclass(frozen=True)
class Syslog:
    """A syslog server."""

    host: str = ""
    transport: Transport = "tls"
    port: int = 0

    @property
    def port_number(self) -> int:
        """The port: the one that was given, or the usual one."""
        return self.port or PORTS[self.transport]


@dataclass(frozen=True)
class Heartbeat:
    """Who is told, as long as all goes on, that it does: a URL at each look, a mailbox once a day."""

    url: str = ""
    mail: str = ""


@dataclass(frozen=True)
class AlertSettings:
    """The ways. One whose first word is empty is not gone."""

    webhook: Webhook = field(default_factory=Webhook)
    syslog: Syslog = field(default_factory=Syslog)
    heartbeat: Heartbeat = field(default_factory=Heartbeat)

    def destinations(self) -> list[tuple[str, int, Literal["tcp", "udp"]]]:
        """Host, port and protocol of each: what a firewall must let out."""
        found: list[tuple[str, int, Literal["tcp", "udp"]]] = []
        for url in (self.webhook.url, self.heartbeat.url):
            if url:
                parts = urlsplit(url)
                found.append((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), "tcp"))
        if self.syslog.host:
            transport: Literal["tcp", "udp"] = "udp" if self.syslog.transport == "udp" else "tcp"
            found.append((self.syslog.host, self.syslog.port_number, transport))
        return found


_PARTS: dict[Part, type[Webhook] | type[Syslog] | type[Heartbeat]] = {
    "webhook": Webhook, "syslog": Syslog, "heartbeat": Heartbeat,
}  # fmt: skip


def _file(data: Path) -> Path:
    return data / "config" / "alerts.toml"


def certificate_file(data: Path, part: Part) -> Path:
    """Where the certificate is that signed a receiver's, if it is none of a public authority; it may not be there."""
    return _file(data).with_suffix(f".{part}.pem")


def alert_settings(data: Path) -> AlertSettings:
    """The settings; empty if there are none. Raise SettingsError if they cannot be used."""
    try:
        found = tomllib.loads(_file(data).read_text("utf-8"))
        made: dict[str, Any] = {name: kind(**found.get(name, {})) for name, kind in _PARTS.items()}
        return _checked(AlertSettings(**made))
    except FileNotFoundError:
        return AlertSettings()
    except (OSError, ValueError, TypeError, UsageError) as error:
        raise SettingsError(f"{_file(data)} cannot be used ({error}). Set it again: `pacs alert`.") from error


def keep(data: Path, part: Part, value: Webhook | Syslog | Heartbeat, certificate: bytes | None = None) -> None:
    """Keep one part. certificate: None keeps the one that is there, empty removes it. Raise UsageError."""
    wanted = _checked(replace(alert_settings(data), **{part: value}))  # type: ignore[arg-type]  # the parts are of _PARTS
    path = certificate_file(data, part)
    if certificate:
        durable.replace_file(path, certificate, 0o600)
    elif certificate is not None:
        path.unlink(missing_ok=True)
    lines: list[str] = []
    for each in fields(wanted):
        values = asdict(getattr(wanted, each.name))
        lines += [f"[{each.name}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    durable.replace_file(_file(data), ("\n".join(lines) + "\n").encode(), 0o600)


def forget(data: Path, part: Part) -> None:
    """Go this way no more. Of the webhook it stays known which secrets it has had."""
    known = alert_settings(data)
    keep(data, part, replace(known.webhook, url="") if part == "webhook" else _PARTS[part](), b"")


def webhook_secret(data: Path, webhook: Webhook) -> bytes:
    """What the webhook's posts are signed with: 64 hexadecimal digits, from the keyring and of this purpose only."""
    purpose = f"pacs webhook {webhook.generation}".encode()
    return hmac.new(Keyring.open(data).signing_key, purpose, hashlib.sha256).hexdigest().encode()


def _checked(settings: AlertSettings) -> AlertSettings:
    for url in (settings.webhook.url, settings.heartbeat.url):
        if url:
            _require_url(url)
    syslog = settings.syslog
    if syslog.transport not in get_args(Transport):
        raise UsageError(f"{syslog.transport!r} is no way to reach a syslog server: tls, tcp or udp.")
    if not syslog.host.isascii() or any(each.isspace() for each in syslog.host):
        raise UsageError(f"{syslog.host!r} is no server's name. Give its name as its certificate has it.")
    if not 0 <= syslog.port < 65536:
        raise UsageError(f"{syslog.port} is no port.")
    if settings.heartbeat.mail:
        require_mailbox(settings.heartbeat.mail)
    return settings


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not url.isascii() or any(each.isspace() for each in url) or "@" in urlsplit(url).netloc:
        raise UsageError("That is no URL: https://host/path, without a user's name in it.")
