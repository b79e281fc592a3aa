"""The audit log's head by mail: what is in a mailbox elsewhere, nobody on this machine can take back."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from pacs import clock
from pacs.errors import SettingsError
from pacs.jobs.mail_settings import mail_settings
from pacs.jobs.mail_spool import Spool
from pacs.model.audit_chain import Head

_TEXT = """\
The audit log of {host} stood at this head on {at} UTC:

    {head}

Keep this mail, where nobody who administers {host} can change it. Whether the log still is what it was then, says there

    sudo pacs audit verify --head {head}

How often these come is the setting audit_mail (docs/operate/audit.md).
"""


def is_mailed(data: Path) -> bool:
    """Whether somebody gets mails."""
    with contextlib.suppress(SettingsError):
        return mail_settings(data) is not None
    return False


def mail_head(data: Path, head: Head) -> bool:
    """Put a mail with a head where mails wait; False if nobody gets mails. Raise MailFailed or SettingsError."""
    settings = mail_settings(data)
    if settings is None:
        return False
    host, spool = socket.gethostname(), Spool(data)
    text = _TEXT.format(host=host, head=head, at=f"{clock.now():%Y-%m-%d %H:%M}")
    with spool.alone():
        spool.add(settings, f"[PACS {host}] audit log: head of line {head.number}", text)
    return True
