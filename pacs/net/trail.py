"""What the audit log is told of an association beside what it stores: who logged in, asked, and was given what.

That a study's objects are about to go is on the disk before the first of them goes; that they went, and how many, is
written when the association is over: one event a study, association and destination, however many requests it took.
What is stored needs nothing here: it has rows (pacs/archive/audit_arrivals.py).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pacs import clock
from pacs.archive.retrieve import Wanted
from pacs.errors import PacsError
from pacs.index import audit as rows
from pacs.index.database import Database, Row
from pacs.index.devices import Device
from pacs.index.refusals import Refusal, RefusalKind
from pacs.model.audit import MINOR, SUCCESS, Event, event, peer, query_of
from pacs.storage.audit_writer import AuditWriter

log = logging.getLogger(__name__)

#: How long a retrieve waits for its event to be on the disk [s]. If the disk does not take it, treatment goes before
#: the record: the objects go, the event is kept in memory, the check `audit` tells.
PATIENCE_S = 2.0
#: A caller that is refused again and again is told of so often [s], with how often it was.
REFUSED_EVERY_S = 60.0
_REFUSED_MAX = 200
_AUTHENTICATION = frozenset(
    [RefusalKind.CALLING_AE, RefusalKind.CALLED_AE, RefusalKind.ADDRESS, RefusalKind.TLS, RefusalKind.LIMIT,
     RefusalKind.PROTOCOL]
)  # fmt: skip


@dataclass
class _Sent:
    """What went of a study to a destination."""

    study: Row | None
    to: dict[str, str]
    begun: str
    classes: Counter[str] = field(default_factory=Counter)
    failed: int = 0


class Trail:
    """What one association did. For its own thread."""

    def __init__(
        self,
        writer: AuditWriter,
        database: Database,
        calling_ae: str,
        address: str,
        user: str,
        certificate: str,
        ae: str,
    ) -> None:
        self._writer, self._database, self._ae = writer, database, ae
        self._by = peer(calling_ae, address, user, certificate)
        self._sent: dict[tuple[int, str], _Sent] = {}
        if user:
            writer.note(event("login", self._by, SUCCESS, to={"ae": ae}))

    def queried(self, request: Any, syntax: str, level: str) -> None:
        """A query, before its first answer goes."""
        identifier = request.Identifier.getvalue() if request.Identifier is not None else b""
        text = {"class": str(request.AffectedSOPClassUID)}
        self._writer.note(
            event("query", self._by, to={"ae": self._ae}, level=level, **text, **query_of(identifier, syntax))
        )

    def sending(self, objects: Sequence[Wanted], destination: Device | None) -> Callable[[Wanted, bool], None]:
        """Objects are about to be sent, back or to a destination: written down when this returns.

        What it gives is to be told of each object, and whether it went.
        """
        to = peer(destination.ae_title, destination.host) if destination is not None else self._by
        name = to.get("ae", "")
        counts = Counter(wanted.study_key for wanted in objects)
        new = [key for key in counts if (key, name) not in self._sent]
        if new:
            studies = self._studies(new)
            begun = clock.now().isoformat(timespec="seconds")
            ticket = 0
            for key in new:
                self._sent[key, name] = _Sent(studies.get(key), to, begun)
                ticket = self._writer.note(self._event("sending", self._sent[key, name], key, objects=counts[key]))
            if not self._writer.wait(ticket, PATIENCE_S):
                log.error("the audit log does not take what is retrieved; the objects go. See `pacs check`.")

        def counted(wanted: Wanted, went: bool) -> None:
            found = self._sent[wanted.study_key, name]
            if went:
                found.classes[wanted.sop_class_uid] += 1
            else:
                found.failed += 1

        return counted

    def close(self) -> None:
        """The association is over."""
        done = [self._event("sent", each, key) for (key, _name), each in self._sent.items()]
        self._sent.clear()
        if done:
            self._writer.note(*done)

    def _event(self, kind: str, sent: _Sent, study_key: int, **more: Any) -> Event:
        study = sent.study or {"study_instance_uid": f"(study_key {study_key})", "patient_id": ""}
        outcome = MINOR if kind == "sent" and sent.failed else SUCCESS
        values = {
            "from": {"ae": self._ae}, "to": sent.to, "begun": sent.begun if kind == "sent" else "",
            "study": study["study_instance_uid"], "patient": study["patient_id"],
            "issuer": study.get("issuer_of_patient_id", ""), "classes": dict(sent.classes), "failed": sent.failed,
        }  # fmt: skip
        return event(kind, self._by, outcome, **values, **more)

    def _studies(self, keys: Sequence[int]) -> dict[int, Row]:
        try:
            return rows.studies(self._database, keys)
        except PacsError as error:  # what cannot be looked up is said by its key
            log.warning("the audit log names a study by its key: %s", error)
            return {}


class RefusedCallers:
    """Tells the audit log of callers that were refused: each at once, then once a minute. For use by many threads."""

    def __init__(self, writer: AuditWriter) -> None:
        self._writer = writer
        self._told: dict[tuple[str, str], float] = {}
        self._since: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def note(self, refusal: Refusal) -> None:
        """A caller was refused. Waits for nothing."""
        is_user = refusal.kind == RefusalKind.USER_IDENTITY
        if not is_user and refusal.kind not in _AUTHENTICATION:
            return
        key, now_s = (refusal.address, str(refusal.kind)), clock.monotonic_s()
        with self._lock:
            if now_s - self._told.get(key, float("-inf")) < REFUSED_EVERY_S:
                self._since[key] += 1
                return
            if len(self._told) >= _REFUSED_MAX:  # a flood of addresses: the oldest half is forgotten
                for old in sorted(self._told, key=self._told.__getitem__)[: _REFUSED_MAX // 2]:
                    del self._told[old]
            self._told[key] = now_s
            before = self._since.pop(key, 0)
        more = f" (and {before} times in the time before)" if before else ""
        by, text = peer(refusal.calling_ae, refusal.address), f"{refusal.kind}: {refusal.reason}{more}"
        if is_user:
            self._writer.note(event("login", by, MINOR, text=text))
        else:
            self._writer.note(event("alert", by, MINOR, kind="node", text=text))
