"""Groups of many small objects moved in several processes, some groups at once."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from pacs.archive.move_group import Group, GroupMover, Pass
from pacs.archive.processes import Processes, Workplace
from pacs.errors import PacsError

#: How often it is looked whether it is to end, while a group is waited for [s].
_LOOK_S = 0.5
_GROUPS_A_PROCESS = 2


@dataclass
class _Moved:
    """What became of a group, and which studies are to be left alone until when."""

    done: Pass = field(default_factory=Pass)
    rest_until_s: dict[int, float] = field(default_factory=dict)
    error: PacsError | None = None


class MovingProcesses:
    """Moves groups of studies to a tier. Close it."""

    def __init__(self, mover: GroupMover, to_tier: int, done: Pass) -> None:
        """What becomes of the groups is added to `done`, and to the mover's studies that are left alone."""
        self._mover, self._to_tier, self._done = mover, to_tier, done
        self._processes = Processes(mover.database, mover.volumes)
        self._under_way: deque[tuple[Future[_Moved], Group]] = deque()
        self._failure: PacsError | None = None
        self._before_bytes = done.size_bytes

    @property
    def given_bytes(self) -> int:
        """What was moved, and what is under way."""
        under_way_bytes = sum(group.size_bytes for _future, group in self._under_way)
        return self._done.size_bytes - self._before_bytes + under_way_bytes

    def move(self, group: Group) -> None:
        """Have a group moved; wait while enough are under way. Raise what ended one before it."""
        try:
            self._under_way.append((self._processes.submit(_move, group, self._to_tier), group))
        except BrokenProcessPool:
            self._failure = self._failure or _ended()
        while len(self._under_way) > _GROUPS_A_PROCESS * self._processes.count:
            self._collect()
        self._raise_failure()

    def wait(self) -> None:
        """Until nothing is under way. Raise what ended a group."""
        while self._under_way:
            self._collect()
        self._raise_failure()

    def close(self) -> None:
        """End what is under way between two objects."""
        if self._under_way:
            self._processes.stop.set()
            while self._under_way:
                self._collect()
        self._processes.close()

    def _collect(self) -> None:
        future, _group = self._under_way[0]
        while True:
            if self._mover.transfer.stop.is_set():
                self._processes.stop.set()
            try:
                moved = future.result(_LOOK_S)
                break
            except TimeoutError:
                continue
            except BrokenProcessPool:
                moved = _Moved(error=_ended())
                break
        self._under_way.popleft()
        self._done.add(moved.done)
        self._mover.rest_until_s |= moved.rest_until_s
        self._failure = self._failure or moved.error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _ended() -> PacsError:
    return PacsError("A process that moves studies was ended. The rule is followed again at the worker's next turn.")


_mover: GroupMover | None = None


def _move(at: Workplace, group: Group, to_tier: int) -> _Moved:
    global _mover
    if _mover is None:
        _mover = GroupMover(at.database, at.volumes, at.stop)
    moved = _Moved()
    if at.stop.is_set():
        return moved
    try:
        _mover.move(group, lambda size_bytes: at.volumes.place(to_tier, size_bytes), moved.done)
    except PacsError as error:
        moved.error = error
    moved.rest_until_s, _mover.rest_until_s = _mover.rest_until_s, {}
    return moved
