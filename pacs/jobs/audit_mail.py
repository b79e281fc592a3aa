"""The audit log's head by mail: what is in a mailbox elsewhere, nobody on this machine can take back."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pacs import clock
from pacs.errors import SettingsError
from pacs.jobs.alert_spool import Spool
from pacs.jobs.alert_way import Alert, host
from pacs.jobs.mail_settings import mail_settings
from pacs.jobs.mail_way import MailWay
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
    """Put a mail with a head where mails wait; False if nobody gets mails. Raise AlertFailed or SettingsError."""
    settings = mail_settings(data)
    if settings is None:
        return False
    way, spool = MailWay(data, settings), Spool(data)
    words = _TEXT.format(host=host(), head=head, at=f"{clock.now():%Y-%m-%d %H:%M}")
    notice = Alert("notice", clock.now(), subject=f"audit log: head of line {head.number}", words=words)
    with spool.alone():
        spool.add(way, notice)
    return True
