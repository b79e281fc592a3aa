"""Is the audit log written, sealed, and its head out of this machine's reach?"""

from __future__ import annotations

import os
from datetime import datetime

from pacs import clock
from pacs.checks.check import ORDER, Ground, Result, Severity
from pacs.storage.audit import AuditLog
from pacs.storage.audit_state import AuditState

_PAGE = "docs/operate/audit.md"
#: What is behind for longer is a warning [s]; ten times as long, critical. The worker looks each minute.
_WRITTEN_S, _SEALED_S = 600.0, 1200.0
#: Heads go every hour, a mail perhaps once a day [s].
_SENT_S, _MAILED_S = 3 * 3600.0, 30 * 3600.0


def run(subject: Ground) -> Result:
    """Look at what the worker noted, and at the log itself."""
    data = subject.settings.data
    state, log = AuditState.read(data), AuditLog(data)
    if not log.folder.exists():
        return Result("audit", "ok", "nothing happened yet")
    found: list[tuple[Severity, str]] = []
    if not os.access(log.folder, os.W_OK):
        found.append(("critical", f"{log.folder} cannot be written to: nothing is recorded"))
    _late(found, state.arrivals_at, _WRITTEN_S, f"what arrived is not written. {state.arrivals_error}")
    unsealed = log.unsealed_since()
    if unsealed is not None:
        _late(found, unsealed.isoformat(), _SEALED_S, f"events are not sealed. {state.seal_error}")
    head = log.head()
    for place, sent in state.sent.items():
        if sent.error and head is not None and sent.head != str(head):
            limit_s = _MAILED_S if place == "mail" else _SENT_S
            _late(found, sent.at or sent.failed_since, limit_s, f"the head did not get to {place}. {sent.error}")
    if state.export_error:
        _late(found, state.export_failed_since, _SENT_S, f"events wait for the repository. {state.export_error}")
    if found:
        severity = max((each for each, _words in found), key=ORDER.index)
        return Result("audit", severity, "; ".join(words for _each, words in found), f"{_PAGE} says what to do.")
    where = ", ".join(sorted(state.sent)) or "nowhere but the archive's volumes"
    return Result("audit", "ok", f"written and sealed; head {str(head)[:24] if head else '-'} sent to {where}")


def _late(found: list[tuple[Severity, str]], since: str, limit_s: float, words: str) -> None:
    if not since:
        return
    late_s = clock.now().timestamp() - datetime.fromisoformat(since).timestamp()
    if late_s > limit_s:
        severity: Severity = "critical" if late_s > 10 * limit_s else "warning"
        found.append((severity, f"for {late_s / 60:.0f} min {words}".strip()))
