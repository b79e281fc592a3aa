"""Alerts by mail, over SMTP: what a person reads."""

from __future__ import annotations

import email
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, getaddresses, make_msgid
from pathlib import Path

from pacs.jobs.alert_way import Alert, AlertFailed, AlertRefused, host
from pacs.jobs.mail_settings import MailSettings, certificate_file, password_of

#: How long the server may take to answer [s].
TIMEOUT_S = 30.0


class MailWay:
    """The mail server that the settings name. to: other mailboxes than theirs."""

    name = "mail"
    acknowledges = True

    def __init__(self, data: Path, settings: MailSettings, to: tuple[str, ...] = ()) -> None:
        self.data, self.settings, self.to = data, settings, to or settings.to

    def compose(self, alert: Alert) -> bytes:
        """A mail as it goes over the wire: 7 bits only, whatever the server can do."""
        message = EmailMessage()
        message["From"], message["To"] = self.settings.sender, ", ".join(self.to)
        message["Subject"] = f"[PACS {host()}] {alert.title}"
        message["Date"] = format_datetime(alert.at)
        message["Message-ID"] = make_msgid(domain=self.settings.sender.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday notice answers it
        message.set_content(alert.text, charset="utf-8", cte="quoted-printable")
        return message.as_bytes(policy=SMTP_POLICY)

    @contextmanager
    def opened(self) -> Iterator[Callable[[bytes], None]]:
        """The mail server, ready to take mails."""
        settings = self.settings
        try:
            with _opened(self.data, settings) as server:
                if settings.user:
                    server.login(settings.user, password_of(self.data))
                yield lambda content: self._deliver(server, content)
        except (OSError, smtplib.SMTPException, ValueError) as error:  # ValueError: a password that is not ASCII
            raise AlertFailed(f"{settings.host}, port {settings.port_number}: {_reason(error)}") from error

    def _deliver(self, server: smtplib.SMTP, content: bytes) -> None:
        to = [address for _name, address in getaddresses([str(email.message_from_bytes(content)["To"])])]
        try:
            server.sendmail(self.settings.sender, to, content)
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            raise AlertRefused(f"{self.settings.host} did not take a mail: {_reason(error)}") from error


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
