"""What is put for an association is sent one at a time, and answered once."""

from __future__ import annotations

import select

from pynetdicom.dimse_primitives import N_EVENT_REPORT

from pacs.net.outbox import Outbox, Outgoing


def outgoing(answers: list[int | None]) -> Outgoing:
    return Outgoing(N_EVENT_REPORT(), 1, answers.append)


def put(outbox: Outbox, each: Outgoing) -> bool:
    outbox.expect()
    return outbox.put(each)


def is_readable(outbox: Outbox) -> bool:
    return bool(select.select([outbox.fd], [], [], 0)[0])


def test_one_is_on_its_way_at_a_time() -> None:
    outbox, answers = Outbox(), []
    first, second = outgoing(answers), outgoing(answers)
    assert put(outbox, first) and put(outbox, second)
    assert is_readable(outbox)
    assert outbox.take() is first
    assert outbox.take() is None
    assert not outbox.answered(7, 0), "nothing was asked under that id"
    assert outbox.answered(int(first.primitive.MessageID), 0x0000)
    assert not outbox.answered(int(first.primitive.MessageID), 0x0000), "it was answered"
    assert outbox.take() is second
    assert second.primitive.MessageID != first.primitive.MessageID
    assert answers == [0x0000]
    assert not is_readable(outbox)
    outbox.close()


def test_what_is_left_at_the_end_is_answered_with_none() -> None:
    outbox, answers = Outbox(), []
    put(outbox, outgoing(answers))
    put(outbox, outgoing(answers))
    outbox.take()
    outbox.close()
    outbox.close()
    assert answers == [None, None]
    assert not put(outbox, outgoing(answers)), "the association is over: the caller does otherwise"
    assert answers == [None, None]
    assert outbox.take() is None


def test_an_association_is_awaited_while_something_is_made_ready_waits_or_is_on_its_way() -> None:
    outbox = Outbox()
    assert not outbox.is_awaited
    outbox.expect()
    assert outbox.is_awaited
    assert not outbox.put(None)
    assert not outbox.is_awaited
    each = outgoing([])
    put(outbox, each)
    assert outbox.is_awaited
    outbox.take()
    assert outbox.is_awaited
    outbox.answered(int(each.primitive.MessageID), 0)
    assert not outbox.is_awaited
    outbox.close()
