"""What the worker does for the audit log: arrivals written, batches sealed, copies and heads sent, the old expired.

every 5 s      what arrived, by association and study (pacs/archive/audit_arrivals.py)
every minute   copies on the archive's own volumes and the standby's; events to the audit record repository
every 5 min    a seal, and the copy in each repository
every hour     the head to each repository (a file of its own), to syslog, and by mail
every day      what is older than audit_keep_days expires
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

from pacs import clock
from pacs.archive.audit_arrivals import Arrivals
from pacs.archive.lineage import Lineage
from pacs.archive.volumes import Volumes
from pacs.backup.standby_volumes import first_here, standby_of
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.index.volumes import REPOSITORY_TIER
from pacs.jobs.audit_mail import is_mailed, mail_head
from pacs.model.audit_chain import Head
from pacs.model.syslog import SECURITY, Level, enveloped
from pacs.net.audit_export import export, receiver_of, source_of
from pacs.net.syslog import send
from pacs.settings import Settings
from pacs.storage.acting import actor
from pacs.storage.audit import AuditLog, first_of
from pacs.storage.audit_copies import AuditCopies, put_head, remove_heads
from pacs.storage.audit_signing import sign_with
from pacs.storage.audit_state import AuditState, Sent
from pacs.storage.kinds import Volume
from pacs.storage.trial import trial_at

log = logging.getLogger(__name__)

ARRIVALS_INTERVAL_S, INTERVAL_S = 5.0, 60.0
SEAL_INTERVAL_S = 300.0
HEADS_EVERY, EXPIRE_EVERY = timedelta(hours=1), timedelta(days=1)
#: So many events go out in a turn.
_EXPORTED_MAX = 20_000
_MAIL = {"hourly": timedelta(hours=1), "daily": timedelta(days=1)}


class Auditing:
    """Looks after the audit log. `arrivals` and `keep` are for two threads."""

    def __init__(self, settings: Settings, database: Database, volumes: Volumes, lineage: Lineage) -> None:
        self.settings, self.volumes, self.lineage = settings, volumes, lineage
        self.audit = AuditLog(settings.data)
        self._arrivals = Arrivals(database, self.audit, settings.ae_title)
        self._copies = AuditCopies(self.audit)
        self._state = AuditState.read(settings.data)
        self._seal_again_s = 0.0
        self._shipped: Head | None = None
        self._expired_at: datetime | None = None

    def write_arrivals(self) -> None:
        """Write what arrived over associations that are over."""
        try:
            self._arrivals.run()
        except PacsError as error:
            self._state.arrivals_error = str(error)
            raise
        self._state.arrivals_at, self._state.arrivals_error = _now(), ""

    def keep_audit_log(self) -> None:
        """Seal, copy, send, expire: each if it is due. What fails is told by the check `audit`, and tried again."""
        self._seal()
        self._expire()
        if not self.lineage.is_held:
            self._copy()
        if trial_at(self.settings.data) is None:
            self._export()
            self._send_heads()
        self._state.write(self.settings.data)

    def _seal(self) -> None:
        if clock.monotonic_s() < self._seal_again_s:
            return
        try:
            self.audit.seal(sign_with(self.settings.data))
        except PacsError as error:
            self._state.seal_error = str(error)
            log.error("the audit log is not sealed: %s", error)
            return
        self._seal_again_s = clock.monotonic_s() + SEAL_INTERVAL_S
        self._state.sealed_at, self._state.seal_error = _now(), ""

    def _expire(self) -> None:
        now = clock.now()
        if self._expired_at is not None and now - self._expired_at < EXPIRE_EVERY:
            return
        self._expired_at = now
        count = self.audit.expire(now - timedelta(days=self.settings.audit_keep_days), actor())
        if count:
            log.info("%d segments of the audit log have expired", count)

    def _copy(self) -> None:
        # Disks and the standby each minute; what is far, and pays for each write, when there is a new head.
        volumes = [volume for tier in (1, 2) for volume in self.volumes.tier(tier)]
        standby = standby_of(self.settings.data)
        twin = first_here(standby, self.volumes.by_id) if standby is not None else None
        if twin is not None and self.lineage.may_ship(twin.volume_id):
            volumes.append(twin)
        head = self.audit.head()
        if head != self._shipped:
            volumes += [each for each in self.volumes.own() if each not in volumes]
            volumes += self._repositories()
            self._shipped = head
        for volume in volumes:
            try:
                self._copies.copy_to(volume)
            except PacsError as error:  # the others get theirs
                log.error("no copy of the audit log on %s: %s", volume.location, error)

    def _repositories(self) -> Iterator[Volume]:
        if trial_at(self.settings.data) is not None:
            return
        for row in self.volumes.rows:
            volume = self.volumes.by_id.get(row.volume_id)
            if row.tier == REPOSITORY_TIER and volume is not None and self.lineage.may_ship(row.volume_id):
                yield volume

    def _send_heads(self) -> None:
        head = self.audit.head()
        if head is None:
            return
        for row in self.volumes.rows:
            if row.tier == REPOSITORY_TIER:
                to_repository = partial(self._to_repository, row.volume_id, head)
                self._send(f"repository {row.name}", HEADS_EVERY, head, to_repository)
        if self.settings.audit_syslog:
            self._send("syslog", HEADS_EVERY, head, lambda: self._to_syslog(head))
        if self.settings.audit_mail != "off":
            # The first an hour after it is known to whom: who sets mails up does not want to be answered by this.
            if "mail" not in self._state.sent and is_mailed(self.settings.data):
                self._state.sent["mail"] = Sent(at=_now())
            every = _MAIL[self.settings.audit_mail]
            self._send("mail", every, head, lambda: mail_head(self.settings.data, head))

    def _send(self, place: str, every: timedelta, head: Head, do: Callable[[], bool | None]) -> None:
        """Send a head if it is due. do: True if it went, False if nobody wants it, None if it is not yet time."""
        sent, now = self._state.sent.get(place, Sent()), clock.now()
        if sent.head == str(head) or (sent.at and now - datetime.fromisoformat(sent.at) < every):
            return
        try:
            went = do()
            if went:
                self._state.sent[place] = Sent(str(head), _now())
            elif went is False:
                self._state.sent.pop(place, None)
        except PacsError as error:
            log.error("the audit log's head does not get to %s: %s", place, error)
            self._state.sent[place] = Sent(sent.head, sent.at, str(error), sent.failed_since or _now())

    def _to_repository(self, volume_id: str, head: Head) -> bool | None:
        volume = self.volumes.get(volume_id)
        if not self.lineage.may_ship(volume_id):
            return None
        self._copies.copy_to(volume)
        put_head(volume, head)
        remove_heads(volume, first_of(self.audit.segments()[0].name))
        return True

    def _to_syslog(self, head: Head) -> bool:
        name = source_of(self.settings).name
        text = f"audit log of {name}: head {head}".encode()
        values = {"head": str(head)}
        told = enveloped(Level.NOTICE, _now(), name, "AUDIT-HEAD", values, text, SECURITY)
        send(receiver_of(self.settings, self.settings.audit_syslog), [told])
        return True

    def _export(self) -> None:
        if not self.settings.audit_syslog:
            return
        state = self._state
        try:
            receiver = receiver_of(self.settings, self.settings.audit_syslog)
            state.exported += export(self.settings, self.audit, receiver, _EXPORTED_MAX)
        except PacsError as error:
            log.error("events of the audit log wait: %s", error)
            state.export_error, state.export_failed_since = str(error), state.export_failed_since or _now()
        else:
            state.export_error = state.export_failed_since = ""


def _now() -> str:
    return clock.now().isoformat(timespec="seconds")
