"""Requests of our own on an association that its peer opened: N-EVENT-REPORT.

The association's thread alone reads and writes its socket. Others put a request here; the thread sends it when it
stands between two messages, and hears the answer in its turn. One is on its way at a time, as was negotiated
(PS3.7 D.3.3.3).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outgoing:
    """A request's primitive without its message id, its context, and who hears the answer's status.

    on_answer is called once, with None if the association ended first.
    """

    primitive: Any
    context_id: int
    on_answer: Callable[[int | None], None]


class Outbox:
    """What is still to be sent on one association. `fd` is readable when there is something."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waiting: deque[Outgoing] = deque()
        self._under_way: tuple[int, Outgoing] | None = None
        self._expected = 0
        self._message_id = 0
        self._closed = False
        self._lock = threading.Lock()

    def expect(self) -> None:
        """A request is being made ready: until it is put or called off, the association is not idle."""
        with self._lock:
            self._expected += 1

    def put(self, outgoing: Outgoing | None) -> bool:
        """Put what was expected; None calls it off. False if the association is over: then nobody is answered."""
        with self._lock:
            self._expected -= 1
            if self._closed or outgoing is None:
                return False
            self._waiting.append(outgoing)
            os.eventfd_write(self.fd, 1)
            return True

    @property
    def is_awaited(self) -> bool:
        """Whether something is expected, waits or is on its way."""
        with self._lock:
            return self._expected > 0 or bool(self._waiting) or self._under_way is not None

    def take(self) -> Outgoing | None:
        """The next request to send now, with its message id; None if there is none, or one is on its way."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self.fd)
            if self._under_way is not None or not self._waiting:
                return None
            outgoing = self._waiting.popleft()
            self._message_id = self._message_id % 0xFFFF + 1
            outgoing.primitive.MessageID = self._message_id
            self._under_way = (self._message_id, outgoing)
            return outgoing

    def answered(self, message_id: int, status: int) -> bool:
        """Take the peer's answer; False if nothing was asked under that message id."""
        with self._lock:
            if self._under_way is None or self._under_way[0] != message_id:
                return False
            outgoing, self._under_way = self._under_way[1], None
        outgoing.on_answer(status)
        return True

    def close(self) -> None:
        """The association is over."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            left = [*([self._under_way[1]] if self._under_way else []), *self._waiting]
            self._waiting.clear()
            self._under_way = None
            os.close(self.fd)
        for outgoing in left:
            outgoing.on_answer(None)
