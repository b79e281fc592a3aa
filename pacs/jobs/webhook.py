"""Alerts by HTTP: JSON, posted to a URL of the operator's, signed; and the ping that says that all goes on.

    X-PACS-Timestamp: <seconds since 1970>
    X-PACS-Signature: sha256=<HMAC-SHA256, hexadecimal, of "<timestamp>." and the body, with the webhook's secret>

No redirect is followed, so that nobody else gets what was meant for the URL. A URL may be a secret: no message has it.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pacs import __version__, clock
from pacs.checks.check import PAGE
from pacs.jobs.alert_settings import Heartbeat, Webhook, certificate_file, webhook_secret
from pacs.jobs.alert_way import Alert, AlertFailed, AlertRefused, host

#: How long a receiver may take to answer [s].
TIMEOUT_S = 20.0
FORMAT = 1


class WebhookWay:
    """The URL that the settings name."""

    name = "webhook"
    acknowledges = True

    def __init__(self, data: Path, settings: Webhook) -> None:
        self.data, self.settings = data, settings

    def compose(self, alert: Alert) -> bytes:
        """The body. `text` is the line that chat programs show."""
        found = {
            "format": FORMAT,
            "id": str(uuid.uuid4()),
            "kind": "recovery" if alert.kind == "alert" and not alert.wrong else alert.kind,
            "at": alert.at.isoformat(timespec="seconds"),
            "host": host(),
            "version": __version__,
            "severity": alert.severity,
            "text": f"[PACS {host()}] {alert.title}",
            "checks": [
                {
                    "name": each.name, "severity": each.severity, "message": each.message, "hint": each.hint,
                    "is_over": each.is_over, "page": f"{PAGE}#{each.name}",
                }
                for each in alert.matters
            ],
        }  # fmt: skip
        return json.dumps(found, ensure_ascii=False).encode()

    @contextmanager
    def opened(self) -> Iterator[Callable[[bytes], None]]:
        """What posts one body."""
        secret, context = webhook_secret(self.data, self.settings), _context(certificate_file(self.data, "webhook"))

        def deliver(body: bytes) -> None:
            timestamp = str(int(clock.now().timestamp()))
            request(self.settings.url, context, "POST", body, {
                "Content-Type": "application/json",
                "X-PACS-Timestamp": timestamp,
                "X-PACS-Signature": f"sha256={signature(secret, timestamp, body)}",
            })  # fmt: skip

        yield deliver


def ping(data: Path, settings: Heartbeat) -> None:
    """Say that all goes on. Raise AlertFailed."""
    request(settings.url, _context(certificate_file(data, "heartbeat")), "GET", None, {})


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """What a receiver computes, too, and compares."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def request(
    url: str, context: ssl.SSLContext, method: str, body: bytes | None, headers: Mapping[str, str]
) -> None:  # fmt: skip
    """Make one request; any answer of 2xx is good. Raise AlertRefused for 4xx, AlertFailed for all else."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    connection = (
        http.client.HTTPSConnection(name, parts.port, timeout=TIMEOUT_S, context=context)
        if parts.scheme == "https"
        else http.client.HTTPConnection(name, parts.port, timeout=TIMEOUT_S)
    )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path, body, {"User-Agent": f"pacs/{__version__}", **headers})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AlertFailed(f"{name} does not answer: {str(reason).rstrip('.')}.") from error
    finally:
        connection.close()
    if 400 <= status < 500 and status not in (408, 425, 429):
        raise AlertRefused(f"{name} refused it with {status}. Is the URL right?")
    if not 200 <= status < 300:
        raise AlertFailed(f"{name} answered with {status}.")


def _context(signed_by: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(signed_by) if signed_by.exists() else None)
    except (OSError, ValueError) as error:
        raise AlertFailed(f"{signed_by} is no certificate. Set it again: `pacs alert`.") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
