"""Events of the audit log to an audit record repository, by syslog over TLS; each goes on where the last one ended."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from pacs.errors import UsageError
from pacs.model.audit import Event
from pacs.model.audit_message import Source, is_message, message_of
from pacs.model.syslog import SECURITY, Level, enveloped
from pacs.net.syslog import Receiver, send
from pacs.settings import Settings
from pacs.storage.audit import AuditLog
from pacs.storage.audit_state import Exported
from pacs.storage.volume import read_identity

#: PS3.15 A.6.2: the MSGID of messages of A.5.
_MESSAGE_ID = "DICOM+RFC3881"
#: So many go over a connection; then it is noted how far the receiver is.
BATCH = 500
#: Where the log is another than the one that was exported (a restore), so much of it is sent once more.
_AGAIN = timedelta(hours=1)


def source_of(settings: Settings) -> Source:
    """This appliance, as messages name it."""
    return Source(socket.gethostname(), settings.ae_title, read_identity(settings.data).appliance_id)


def receiver_of(settings: Settings, text: str) -> Receiver:
    """The receiver that is named, with the certificates in config/audit: ca.pem of who signed its one, client.pem our
    own with its key, each if it is there. Raise UsageError."""
    folder = settings.data / "config" / "audit"
    files = {name: path if (path := folder / f"{name}.pem").exists() else None for name in ("ca", "client")}
    try:
        return Receiver.parse(text, certificate_authority=files["ca"], certificate=files["client"])
    except ValueError:
        raise UsageError(f"{text!r} is no HOST:PORT of an audit record repository.") from None


def syslog_message(event: Event, source: Source) -> bytes:
    """An event as it goes to a receiver."""
    values = {"line": str(event["n"]), "check": str(event["c"])}
    level = Level.WARNING if event.get("o") else Level.NOTICE
    content = message_of(event, source)
    return enveloped(level, str(event["at"]), source.name, _MESSAGE_ID, values, content, SECURITY)


def export(settings: Settings, audit: AuditLog, receiver: Receiver, count_max: int | None = None) -> int:
    """Send what the receiver does not have yet; return how many events. Raise SyslogFailed; what was taken before
    that stays noted."""
    source, count = source_of(settings), 0
    events = _after(audit, Exported.read(settings.data, str(receiver)))
    while count_max is None or count < count_max:
        some = list(islice(events, BATCH))
        if not some:
            break
        send(receiver, (syslog_message(each, source) for each in some if is_message(each)))
        last = some[-1]
        Exported(last["n"], last["c"], last["at"]).write(settings.data, str(receiver))
        count += sum(map(is_message, some))
    return count


def _after(audit: AuditLog, position: Exported) -> Iterator[Event]:
    """The lines after the last one that was taken."""
    if not position.n:
        return audit.read()
    same = next(audit.read(position.n), None)
    if same is not None and (same["n"], same["c"]) == (position.n, position.c):
        return audit.read(position.n + 1)
    if same is not None and same["n"] > position.n:  # what was taken has expired here
        return audit.read(same["n"])
    since = (datetime.fromisoformat(position.at) - _AGAIN).isoformat()
    return (each for each in audit.read() if str(each["at"]) >= since)
