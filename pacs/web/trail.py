"""What the audit log is told of what is asked over the web: queries, and who was given what of which study.

A viewer asks for a study in hundreds of requests. That a caller is given a study is on the disk before the first byte
goes; what they were given, and how much, is written when they have asked for nothing of it for a while: two events, as
for an association's retrieve. What is stored needs nothing here: it has rows (pacs/archive/audit_arrivals.py).
"""

from __future__ import annotations

import base64
import logging
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pacs import clock
from pacs.archive.retrieve import Wanted
from pacs.errors import PacsError
from pacs.index import audit as rows
from pacs.index.database import Database, Row
from pacs.model.audit import QUERY_SIZE_BYTES_MAX, Event, event
from pacs.storage.audit_writer import AuditWriter
from pacs.web.access import Caller

log = logging.getLogger(__name__)

#: How long a retrieve waits for its event to be on the disk [s]; then treatment goes before the record.
PATIENCE_S = 2.0
#: A caller who asks for nothing of a study for so long has done with it; nobody is at it for longer than that [s].
IDLE_S, LASTS_S = 60.0, 900.0
_LOOK_S = 10.0
_OPEN_MAX = 10_000


@dataclass
class _Given:
    """What a caller was given of a study."""

    study: Row
    caller: Caller
    begun: str
    begun_s: float
    last_s: float
    objects: set[int] = field(default_factory=set)
    classes: Counter[str] = field(default_factory=Counter)

    def is_over(self, now_s: float) -> bool:
        """Whether nothing came for a while, or it lasts long."""
        return now_s - self.last_s > IDLE_S or now_s - self.begun_s > LASTS_S


class WebTrail:
    """What all callers did. For use by many threads."""

    def __init__(self, audit: AuditWriter, database: Database, ae_title: str) -> None:
        self._audit, self._database, self._us = audit, database, {"ae": ae_title}
        self._given: dict[tuple[str, str, int], _Given] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, name="web-audit", daemon=True)
        self._thread.start()

    def queried(self, caller: Caller, level: str, path: str, query: str) -> None:
        """A query, before its first answer goes."""
        asked = f"{path}?{query}".encode()[:QUERY_SIZE_BYTES_MAX]
        values = {"class": "QIDO-RS", "query": base64.b64encode(asked).decode(), "syntax": "URI"}
        self._audit.note(event("query", caller.by, to=self._us, level=level, **values))

    def giving(self, caller: Caller, objects: Sequence[Wanted]) -> None:
        """Objects, or a part of them, are about to be given: written down when this returns."""
        self.describing(caller, {wanted.study_key for wanted in objects})
        with self._lock:
            for wanted in objects:
                given = self._given.get((caller.name, caller.address, wanted.study_key))
                if given is not None and wanted.object_key not in given.objects:
                    given.objects.add(wanted.object_key)
                    given.classes[wanted.sop_class_uid] += 1

    def describing(self, caller: Caller, study_keys: Collection[int]) -> None:
        """Something of these studies is about to be given: written down when this returns."""
        now_s, ticket = clock.monotonic_s(), 0
        with self._lock:
            known = {key: self._given.get((caller.name, caller.address, key)) for key in study_keys}
            for given in known.values():
                if given is not None:
                    given.last_s = now_s
        new = [key for key, given in known.items() if given is None]
        if not new:
            return
        studies = self._studies(new)
        begun = clock.now().isoformat(timespec="seconds")
        for key in new:
            study = studies.get(key) or {"study_instance_uid": f"(study_key {key})", "patient_id": ""}
            made = _Given(study, caller, begun, now_s, now_s)
            with self._lock:
                self._given.setdefault((caller.name, caller.address, key), made)
            ticket = self._audit.note(self._event("sending", made))
        if not self._audit.wait(ticket, PATIENCE_S):
            log.error("the audit log does not take what is retrieved; the objects go. See `pacs check`.")

    def stop(self) -> None:
        """Write what is left."""
        self._stopping.set()
        self._thread.join(5)
        self._end(None)

    def _look(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            now_s = clock.monotonic_s()
            is_full = len(self._given) > _OPEN_MAX
            self._end(None if is_full else now_s)

    def _end(self, now_s: float | None) -> None:
        """Write down what is over at this time; all of it for None."""
        with self._lock:
            over = [key for key, given in self._given.items() if now_s is None or given.is_over(now_s)]
            ended = [self._given.pop(key) for key in over]
        if ended:
            self._audit.note(*(self._event("sent", given) for given in ended))

    def _event(self, kind: str, given: _Given) -> Event:
        return event(
            kind, given.caller.by, **{"from": self._us}, to=given.caller.by, text="DICOMweb",
            begun=given.begun if kind == "sent" else "", study=given.study["study_instance_uid"],
            patient=given.study["patient_id"], issuer=given.study.get("issuer_of_patient_id", ""),
            classes=dict(given.classes) if kind == "sent" else {},
        )  # fmt: skip

    def _studies(self, keys: Sequence[int]) -> dict[int, Row]:
        try:
            return rows.studies(self._database, keys)
        except PacsError as error:  # what cannot be looked up is said by its key
            log.warning("the audit log names a study by its key: %s", error)
            return {}
