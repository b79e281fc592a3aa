"""The share processes of one share: a few, each for one request at a time, and left behind when they do not answer.

A process that hangs in a call on a dead share cannot be ended, not even by SIGKILL, until the share answers. It gets
the signal, and is not waited for. The share counts as missing from then on: everybody is told so at once, and now and
then (with back-off) one fresh process tries whether it is back. So a share that hangs costs those who were using it
one time limit, nobody else anything, and the machine a bounded number of processes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pacs import clock
from pacs.errors import PacsError, VolumeMissing
from pacs.storage.share_wire import Lost, NoAnswer, Wire, from_failure

log = logging.getLogger(__name__)

#: Processes for one share at most, and how many of them may be busy with a stream (a put, a listing): a put of what
#: is read from the same share needs another one to go on.
PROCESSES_MAX = 8
_STREAMS_MAX = 5
#: Processes left behind and not ended yet, at most: with more, no other is tried.
LEFT_BEHIND_MAX = 4
#: How long a share that did not answer is left alone, at first and at most [s].
BACK_OFF_S = (1.0, 60.0)


class Process:
    """One share process, as its service sees it."""

    def __init__(self, root: str) -> None:
        """Start it."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "pacs.storage.share_process", root],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/", start_new_session=True,
            )  # fmt: skip
        self.wire = Wire(ours)
        self.is_between_requests = True
        #: What it has the share open for.
        self.role = ""

    def ask(self, call: str, each: Callable[[bytes, bytes], None] | None = None, **words: Any) -> Any:
        """Send a request and return its result. Raise what it failed with."""
        self.begin(call, **words)
        return self.result(each)

    def begin(self, call: str, **words: Any) -> None:
        """Send a request; what belongs to it may follow, then `result`."""
        self.is_between_requests = False
        self.wire.say(b"Q", {"call": call, **words})

    def result(self, each: Callable[[bytes, bytes], None] | None = None) -> Any:
        """The result of the request; `each` gets the frames that come before it. Raise what it failed with."""
        for kind, content in self.frames():
            if kind == b"R":
                return json_of(content)
            if each is not None:
                each(kind, content)
        raise Lost("no result")

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """The frames of an answer; the last is its result. Raise what it failed with."""
        while True:
            kind, content = self.wire.receive()
            self.is_between_requests = kind in (b"R", b"F")
            if kind == b"F":
                raise from_failure(json_of(content))
            if kind != b"P":
                yield kind, content
            if kind == b"R":
                return

    def end(self) -> None:
        """Have it end, without waiting for it."""
        self.wire.close()
        with contextlib.suppress(ProcessLookupError):
            self.popen.kill()


class Pool:
    """The processes of one share. For use by many threads."""

    def __init__(self, root: str, timeout_s: float) -> None:
        self.root, self.timeout_s = root, timeout_s
        self._changed = threading.Condition()
        self._streams = threading.BoundedSemaphore(_STREAMS_MAX)
        self._idle: list[Process] = []
        self._count = 0
        self._ending: list[Process] = []
        self._is_missing, self._is_trying = False, False
        self._missing_until_s, self._back_off_s = 0.0, BACK_OFF_S[0]

    @contextmanager
    def process(self, role: str) -> Iterator[Process]:
        """A process that has the share open for a role, for one request.

        Raise VolumeMissing if the share does not answer or all are busy, and what the request raises.
        """
        with self.raw_process() as process:
            if process.role != role:
                process.ask("open", role=role)
                process.role = role
                self._answers()
            yield process

    @contextmanager
    def stream(self, role: str) -> Iterator[Process]:
        """The same for a request that lasts as long as something else takes: a put, a listing."""
        if not self._streams.acquire(timeout=self.timeout_s):
            raise self._busy()
        try:
            with self.process(role) as process:
                yield process
        finally:
            self._streams.release()

    @contextmanager
    def raw_process(self) -> Iterator[Process]:
        """A process that may have nothing open."""
        process = self._take()
        process.wire.set_limit(self.timeout_s)
        try:
            yield process
        except NoAnswer:
            self._leave_behind(process)
            raise VolumeMissing(self._why_missing()) from None
        except Lost as error:
            self._end(process)
            raise VolumeMissing(f"A share process of {self.root} ended: {error}. It is started again.") from error
        except BaseException:
            # In the middle of a request, what comes next from it belongs to that one.
            (self._give_back if process.is_between_requests else self._end)(process)
            raise
        else:
            self._give_back(process)

    def require_answering(self) -> None:
        """Raise VolumeMissing while the share is known not to answer and is left alone. Does not ask it."""
        with self._changed:
            if self._is_missing and clock.monotonic_s() < self._missing_until_s:
                raise VolumeMissing(self._why_missing())

    def close(self) -> None:
        """End the processes that do nothing."""
        with self._changed:
            idle, self._idle = self._idle, []
            self._count -= len(idle)
        for process in idle:
            process.end()
            process.popen.wait()  # it was between requests: nothing holds it

    def left_behind(self) -> int:
        """How many processes were left behind and have not ended yet."""
        with self._changed:
            self._ending = [each for each in self._ending if each.popen.poll() is None]
            return len(self._ending)

    def _take(self) -> Process:
        with self._changed:
            if not self._changed.wait_for(self._may_go_on, self.timeout_s):
                raise self._busy()
            if self._is_missing:
                self._require_try()
            if self._idle:
                return self._idle.pop()
            self._count += 1
        try:
            return Process(self.root)
        except OSError as error:
            self._forget()
            raise VolumeMissing(f"No share process could be started: {error.strerror}. Is memory short?") from error

    def _may_go_on(self) -> bool:
        return self._is_missing or bool(self._idle) or self._count < PROCESSES_MAX

    def _require_try(self) -> None:
        """Raise VolumeMissing unless it is time, and ours, to try whether the share is back."""
        if self._is_trying or clock.monotonic_s() < self._missing_until_s:
            raise VolumeMissing(self._why_missing())
        self._ending = [each for each in self._ending if each.popen.poll() is None]
        if len(self._ending) >= LEFT_BEHIND_MAX:
            raise VolumeMissing(self._why_missing())
        self._is_trying = True

    def _answers(self) -> None:
        with self._changed:
            if self._is_missing:
                log.warning("the share at %s answers again", self.root)
            self._is_missing, self._is_trying, self._back_off_s = False, False, BACK_OFF_S[0]
            self._changed.notify_all()

    def _give_back(self, process: Process) -> None:
        self._answers()
        with self._changed:
            self._idle.append(process)
            self._changed.notify_all()

    def _end(self, process: Process) -> None:
        process.end()
        with self._changed:
            self._ending.append(process)
        self._forget()

    def _forget(self) -> None:
        with self._changed:
            self._count -= 1
            self._is_trying = False
            self._changed.notify_all()

    def _leave_behind(self, process: Process) -> None:
        """The share is missing now, and so are the processes that were about to use it."""
        with self._changed:
            if not self._is_missing or self._is_trying:
                log.error("the share at %s does not answer: its processes are left behind", self.root)
                self._missing_until_s = clock.monotonic_s() + self._back_off_s
                self._back_off_s = min(2 * self._back_off_s, BACK_OFF_S[1])
            self._is_missing, self._is_trying = True, False
            idle, self._idle = self._idle, []
            self._count -= len(idle) + 1
            self._ending += [process, *idle]
            self._changed.notify_all()
        for each in (process, *idle):
            each.end()

    def _busy(self) -> PacsError:
        return VolumeMissing(f"All processes of the share at {self.root} are busy. Try again in a while.")

    def _why_missing(self) -> str:
        return (
            f"The share at {self.root} does not answer, for {self.timeout_s:g} s and more. It is left alone, and tried "
            "now and then. Look at its server and at the network."
        )


_pools: dict[str, Pool] = {}
_pools_lock = threading.Lock()


def pool_of(root: str, options: Mapping[str, Any]) -> Pool:
    """The processes of the share at root: the same ones however often its volume is opened."""
    with _pools_lock:
        pool = _pools.setdefault(root, Pool(root, 0))
        pool.timeout_s = float(options.get("timeout_s", 30))
        return pool


def json_of(content: bytes) -> Any:
    """What a frame of JSON holds. Raise Lost."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise Lost("no JSON") from error
