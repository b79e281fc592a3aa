"""Mails on their way: written down durably, sent when the server takes them, and only then forgotten.

    DATA/mail/<when>-<number>.eml    a mail that waits
    DATA/mail/state.json             what was told of which matter, when the last weekly mail was, how sending went

A mail server that is away loses nothing and blocks nothing. A mail whose sending was killed may come twice, with the
same Message-ID. What waits for more than two weeks is dropped, and so are the oldest of more than 200.
"""

from __future__ import annotations

import json
import logging
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import PacsError
from pacs.jobs.mail_settings import MailSettings, certificate_file, password_of
from pacs.model.mail_matters import Told
from pacs.storage import durable
from pacs.storage.holding import holding

log = logging.getLogger(__name__)

FOLDER = "mail"
#: How long the server may take to answer [s].
TIMEOUT_S = 30.0
KEPT_FOR, KEPT_MAX = timedelta(days=14), 200


class MailFailed(PacsError):
    """The mail server did not take a mail. It is tried again; see `pacs mail show`."""

    exit_code = 4


@dataclass
class MailState:
    """What is known between two looks. Times are ISO 8601."""

    matters: dict[str, Told] = field(default_factory=dict)
    weekly_at: datetime | None = None
    sent_at: datetime | None = None
    error: str = ""
    failed_since: datetime | None = None


class Spool:
    """The mails of an instance that wait."""

    def __init__(self, data: Path) -> None:
        self.data, self.folder = data, data / FOLDER

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the spool. Raise MailFailed if another one does."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with holding(self.folder, MailFailed("Mails are being sent just now. Try again in a minute.")):
            yield

    def state(self) -> MailState:
        """What is known; nothing if it cannot be read: then it is told again."""
        try:
            found = json.loads((self.folder / "state.json").read_text("utf-8"))
            matters = {name: Told(**_with_times(each)) for name, each in found.pop("matters").items()}
            return MailState(matters=matters, **_with_times(found))
        except FileNotFoundError:
            return MailState()
        except (OSError, ValueError, TypeError, KeyError):
            log.warning("what was told by mail is not known any more: it is told again")
            return MailState()

    def put_state(self, state: MailState) -> None:
        """Write it down."""
        text = json.dumps(asdict(state), default=lambda value: value.isoformat(), indent=1)
        durable.replace_file(self.folder / "state.json", (text + "\n").encode(), 0o600)

    def add(self, settings: MailSettings, subject: str, text: str) -> Path:
        """Put a mail into the spool, durably."""
        now = clock.now()
        path = self.folder / f"{now:%Y%m%dT%H%M%S_%f}.eml"
        durable.replace_file(path, compose(settings, subject, text, now), 0o600)
        for old in self.waiting()[:-KEPT_MAX]:
            self._drop(old)
        return path

    def waiting(self) -> list[Path]:
        """The mails that wait, oldest first."""
        return sorted(self.folder.glob("*.eml"))

    def send(self, settings: MailSettings) -> int:
        """Send what waits; return how many went. One that is refused stays behind, and the others go.

        Raise MailFailed with the reason if any could not be sent.
        """
        waiting = self.waiting()
        if not waiting:
            return 0
        sent, refused = 0, ""
        with connected(self.data, settings) as server:
            for path in waiting:
                try:
                    server.sendmail(settings.sender, list(settings.to), path.read_bytes())
                except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
                    refused = _reason(error)
                    self._drop_if_old(path)
                    continue
                path.unlink()
                sent += 1
        if refused:
            raise MailFailed(f"{settings.host} did not take a mail: {refused}")
        return sent

    def drop_old(self) -> None:
        """Let go of what has waited for too long."""
        for path in self.waiting():
            self._drop_if_old(path)

    def _drop_if_old(self, path: Path) -> None:
        if clock.now().timestamp() - path.stat().st_mtime > KEPT_FOR.total_seconds():
            self._drop(path)

    def _drop(self, path: Path) -> None:
        log.error("a mail that could not be sent is dropped", extra={"mail": path.name})
        path.unlink(missing_ok=True)


@contextmanager
def connected(data: Path, settings: MailSettings) -> Iterator[smtplib.SMTP]:
    """The mail server, ready to take mails. Raise MailFailed with the reason, in words for an operator."""
    try:
        with _opened(data, settings) as server:
            if settings.user:
                server.login(settings.user, password_of(data))
            yield server
    except (OSError, smtplib.SMTPException, ValueError) as error:  # ValueError: a password that is not ASCII
        raise MailFailed(f"{settings.host}, port {settings.port_number}: {_reason(error)}") from error


def _opened(data: Path, settings: MailSettings) -> smtplib.SMTP:
    signed_by = certificate_file(data)
    context = ssl.create_default_context(cafile=str(signed_by) if signed_by.exists() else None)
    if settings.tls == "tls":
        return smtplib.SMTP_SSL(settings.host, settings.port_number, timeout=TIMEOUT_S, context=context)
    server = smtplib.SMTP(settings.host, settings.port_number, timeout=TIMEOUT_S)
    if settings.tls == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def compose(settings: MailSettings, subject: str, text: str, now: datetime) -> bytes:
    """A mail as it goes over the wire: 7 bits only, whatever the server can do."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender, ", ".join(settings.to), subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday notice answers it
    message.set_content(text, charset="utf-8", cte="quoted-printable")
    return message.as_bytes(policy=SMTP_POLICY)


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        said = "; ".join(f"{address}: {_said(reply[1])}" for address, reply in error.recipients.items())
    elif isinstance(error, smtplib.SMTPResponseException):
        said = _said(error.smtp_error)
    else:
        said = str(error) or type(error).__name__
    return f"{' '.join(said.split())[:300].rstrip('.')}."


def _said(reply: bytes | str) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)


def _with_times(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value) if value and (name.endswith("_at") or "since" in name) else value
        for name, value in values.items()
    }
