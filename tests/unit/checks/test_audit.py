"""The check of the audit log tells well from ill."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from pacs import clock
from pacs.checks import audit
from pacs.checks.check import Subject
from pacs.cli.instance import Instance
from pacs.model.audit import event
from pacs.storage.audit import AuditLog
from pacs.storage.audit_state import AuditState, Sent


def test_what_is_not_written_sealed_or_sent_is_told(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    data, subject = instance.settings.data, Subject(instance.settings, instance.database, instance.volumes)
    log, long_ago = AuditLog(data), (clock.now() - timedelta(hours=5)).isoformat()
    assert audit.run(subject).severity == "ok"
    log.append([event("alert", {"unit": "x"}, kind="node", text="now")])
    assert audit.run(subject).severity == "ok", "a moment ago"
    log.append([{**event("alert", {"unit": "x"}, kind="node", text="then"), "at": long_ago}])
    log.seal()
    assert audit.run(subject).severity == "ok", "sealed"
    log.append([{**event("alert", {"unit": "x"}, kind="node", text="then"), "at": long_ago}])
    told = audit.run(subject)
    assert told.severity == "critical" and "not sealed" in told.message and told.hint
    head = log.seal()
    AuditState(arrivals_at=long_ago, arrivals_error="No room left.").write(data)
    assert "what arrived is not written. No room left." in audit.run(subject).message
    AuditState(sent={"syslog": Sent("1:0", long_ago, "It is away.", long_ago)}).write(data)
    told = audit.run(subject)
    assert (told.severity, "did not get to syslog. It is away." in told.message) == ("warning", True)
    AuditState(sent={"mail": Sent("1:0", long_ago, "It is away.", long_ago)}).write(data)
    assert audit.run(subject).severity == "ok", "a mail may go once a day"
    AuditState(export_error="It is away.", export_failed_since=long_ago).write(data)
    assert "events wait" in audit.run(subject).message
    AuditState(sent={"mail": Sent(str(head), long_ago)}).write(data)
    told = audit.run(subject)
    assert told.severity == "ok" and "sent to mail" in told.message
    monkeypatch.setattr(os, "access", lambda *_words: False)
    assert audit.run(subject).severity == "critical"
