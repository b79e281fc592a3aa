"""The audit log's head by mail: what is in a mailbox elsewhere, nobody on this machine can take back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
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


@dataclass(frozen=True)
class HeadMail(Alert):
    """A mail with a head."""

    head: str = ""

    @property
    def title(self) -> str:
        """One line of what it says."""
        return f"audit log: head of line {self.head.partition(':')[0]}"

    @property
    def text(self) -> str:
        """All of it, for a person."""
        return _TEXT.format(host=host(), head=self.head, at=f"{self.at:%Y-%m-%d %H:%M}")


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
    spool = Spool(data)
    with spool.alone():
        spool.add(MailWay(data, settings), HeadMail("alive", clock.now(), head=str(head)))
    return True
