"""Noting what was refused, so that a person can accept it: never in the way of an association.

`note` puts a refusal into memory and returns; a thread writes what has gathered, at most once a second, in one
transaction. When the database is down they are kept, up to a bound, and tried again; each was logged at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from pacs import clock
from pacs.index import refusals as rows
from pacs.index.database import Database
from pacs.index.refusals import Refusal
from pacs.index.selftest import AE_TITLE
from pacs.model.addresses import is_loopback

log = logging.getLogger(__name__)

#: Refusals of this many groups are kept until they are written; more are only logged.
GROUPS_MAX = 1000
_INTERVAL_S = 1.0
_RETRY_S = 10.0
_TEXT_MAX = 200
_WANTED_MAX = 16


class Refusals:
    """What was refused and is not written yet. For use by many threads."""

    def __init__(self, database: Database, also: Callable[[Refusal], None] = lambda _refusal: None) -> None:
        """also is told of each; it must not wait."""
        self._database, self._also = database, also
        self._gathered: dict[tuple[str, str, str, str], Refusal] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, refusal: Refusal) -> None:
        """Note a refusal. Raises nothing and waits for nothing. A selftest's are told by the selftest."""
        if refusal.calling_ae == AE_TITLE and is_loopback(refusal.address):
            return
        bounded = _bounded(refusal)
        self._also(bounded)
        with self._lock:
            known = self._gathered.get(bounded.group)
            if known is None and len(self._gathered) >= GROUPS_MAX:
                return
            count = bounded.count + (known.count if known else 0)
            self._gathered[bounded.group] = replace(bounded, count=count)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="refusals", daemon=True)
                self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """Write what is left, once."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2 * _RETRY_S)

    def _write(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            is_written = self._flush()
            if not is_written:
                self._wake.set()
            self._stopping.wait(_INTERVAL_S if is_written else _RETRY_S)
        self._flush()

    def _flush(self) -> bool:
        with self._lock:
            taken, self._gathered = self._gathered, {}
        if not taken:
            return True
        try:
            rows.record(self._database, list(taken.values()))
        except Exception as error:  # a record must break nothing
            log.warning("%d kinds of refusals are not recorded yet: %s", len(taken), type(error).__name__)
            with self._lock:
                for group, refusal in taken.items():
                    later = self._gathered.get(group)
                    kept = later or refusal
                    self._gathered[group] = replace(kept, count=refusal.count + (later.count if later else 0))
            return False
        return True


def _bounded(refusal: Refusal) -> Refusal:
    """The refusal with texts that a table can hold and a terminal can show, whatever a peer sent."""
    return replace(
        refusal,
        calling_ae=_printable(refusal.calling_ae, 16),
        called_ae=_printable(refusal.called_ae, 16),
        detail=_printable(refusal.detail),
        reason=_printable(refusal.reason, 500),
        wanted=tuple(_printable(each, 64) for each in refusal.wanted[:_WANTED_MAX]),
        sop_instance_uid=_printable(refusal.sop_instance_uid, 64),
        at=clock.now(),
    )


def _printable(text: str, length_max: int = _TEXT_MAX) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:length_max])
