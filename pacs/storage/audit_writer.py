"""Writing events behind the back of who tells of them: never in the way of an association.

`note` puts an event into memory and wakes a thread, which writes all that has gathered with one fsync. Who must be sure
of one waits for it, and not for long. What cannot be written is kept, up to a bound, and tried again; the check `audit`
tells.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from pacs import clock
from pacs.errors import PacsError
from pacs.model.audit import Event
from pacs.storage.audit import AuditLog

log = logging.getLogger(__name__)

#: So many events are kept while none can be written; then the oldest go, and their number is told.
WAITING_MAX = 20_000
_RETRY_S = 5.0


class AuditWriter:
    """Writes the events of one process. For use by many threads."""

    def __init__(self, data: Path) -> None:
        self.audit = AuditLog(data)
        self._waiting: list[Event] = []
        self._noted = self._done = self._dropped = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def note(self, *events: Event) -> int:
        """Note events, which happen now. Raises nothing, waits for nothing. What it returns can be waited for."""
        now = clock.now().isoformat(timespec="microseconds")
        with self._changed:
            self._waiting += [{"at": now, **each} for each in events]
            self._noted += len(events)
            excess = len(self._waiting) - WAITING_MAX
            if excess > 0:
                del self._waiting[:excess]
                self._dropped += excess
                self._done += excess
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return self._noted

    def wait(self, ticket: int, timeout_s: float) -> bool:
        """Wait until what was noted is on the disk. False if it is not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= ticket, timeout_s)

    def stop(self) -> None:
        """Write what is left, once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(2 * _RETRY_S)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                taken, dropped = self._waiting, self._dropped
                self._waiting, self._dropped = [], 0
                is_last = self._stopping
            if taken and not self._append(taken, dropped):
                with self._changed:
                    self._waiting, self._dropped = taken + self._waiting, self._dropped + dropped
                    if is_last:
                        return
                    self._changed.wait_for(lambda: self._stopping, _RETRY_S)
                continue
            with self._changed:
                self._done += len(taken)
                self._changed.notify_all()
                if is_last and not self._waiting:
                    return

    def _append(self, events: list[Event], dropped: int) -> bool:
        lost: list[Event] = []
        if dropped:
            text = f"{dropped} events could not be written, and are lost"
            lost = [{"e": "alert", "o": 12, "kind": "recording", "text": text}]
        try:
            self.audit.append(lost + events)
        except PacsError as error:
            log.error("%d events of the audit log are not written yet: %s", len(events), error)
            return False
        except Exception:  # a record must break nothing
            log.exception("%d events of the audit log are not written yet", len(events))
            return False
        return True
