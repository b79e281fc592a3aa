"""Events are written behind the back of who tells of them, in order; what cannot be written is kept, up to a bound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pacs.errors import VolumeFull
from pacs.index.refusals import Refusal, RefusalKind
from pacs.model.audit import Event, event
from pacs.net.trail import RefusedCallers
from pacs.storage import audit_writer
from pacs.storage.audit import AuditLog
from pacs.storage.audit_writer import AuditWriter


def note(writer: AuditWriter, number: int) -> int:
    return writer.note(event("alert", {"unit": "x"}, kind="node", text=str(number)))


def texts(data: Path) -> list[str]:
    return [each.get("text", "") for each in AuditLog(data).read() if each["e"] != "segment"]


def test_who_waits_has_it_on_the_disk(tmp_path: Path) -> None:
    writer = AuditWriter(tmp_path)
    for number in range(50):
        ticket = note(writer, number)
    assert writer.wait(ticket, 30)
    assert texts(tmp_path) == [str(number) for number in range(50)]
    writer.stop()


def test_stopping_writes_what_is_left(tmp_path: Path) -> None:
    writer = AuditWriter(tmp_path)
    for number in range(200):
        note(writer, number)
    writer.stop()
    assert len(texts(tmp_path)) == 200


def test_a_full_disk_loses_nothing_up_to_a_bound_and_says_what_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_writer, "WAITING_MAX", 10)
    monkeypatch.setattr(audit_writer, "_RETRY_S", 0.01)
    is_full = [True]
    append = AuditLog.append

    def full(self: AuditLog, events: Sequence[Event]) -> int:
        if is_full[0]:
            raise VolumeFull
        return append(self, events)

    monkeypatch.setattr(AuditLog, "append", full)
    writer = AuditWriter(tmp_path)
    first = note(writer, 0)
    assert not writer.wait(first, 0.05)
    for number in range(1, 40):
        last = note(writer, number)
    is_full[0] = False
    assert writer.wait(last, 30)
    writer.stop()
    found = texts(tmp_path)
    assert found[-1] == "39"
    kept = [each for each in found if each.isdecimal()]
    lost = [int(each.split()[0]) for each in found if "are lost" in each]
    assert len(kept) + sum(lost) == 40 and lost, "each is there, or counted among the lost"


def test_a_caller_that_is_refused_again_and_again_is_told_of_once_a_minute(tmp_path: Path) -> None:
    writer = AuditWriter(tmp_path)
    told = RefusedCallers(writer)
    for _number in range(100):
        told.note(Refusal(RefusalKind.CALLING_AE, "X", "192.0.2.1", "it is not known"))
    told.note(Refusal(RefusalKind.USER_IDENTITY, "X", "192.0.2.1", "the passcode is not right"))
    told.note(Refusal(RefusalKind.OBJECT, "X", "192.0.2.1", "no study"))
    writer.stop()
    assert [(each["e"], each["by"]) for each in AuditLog(tmp_path).read(2)] == [
        ("alert", {"ae": "X", "peer": "192.0.2.1"}), ("login", {"ae": "X", "peer": "192.0.2.1"}),
    ]  # fmt: skip
