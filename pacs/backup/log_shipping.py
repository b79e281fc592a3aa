"""The database's log on its way from the spool to the repositories, each at its own pace.

Each repository has a state of its own, config/pgbackrest/<name>.json: which of the segments that wait it has had,
since when it fails, and whether its log has a gap. A segment leaves the spool when every repository has it. When more
waits than there is room for, those that lack the oldest get a gap: their segments are given up but for the newest,
which is tried again and again. When that one goes through the repository is back, and a new backup is due there: from
the backup on its log is whole again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from pacs import clock
from pacs.backup.log_spool import LogSpool, is_log_segment
from pacs.backup.pgbackrest import PgBackRest, config_file, identity_folder, reason
from pacs.errors import BackupError, PacsError
from pacs.storage import durable

log = logging.getLogger(__name__)

#: How long a segment may take on its way [s]; a slower repository is taken for away.
PUSH_TIMEOUT_S = 300.0
#: How long after a failure it is tried again [s].
RETRY_S = 10.0


@dataclass
class State:
    """How a repository stands. Times are ISO 8601."""

    #: Whether it can take the log: a backup has prepared it.
    ready: bool = False
    #: Of what waits, what it has.
    pushed: list[str] = field(default_factory=list)
    last_segment: str | None = None
    last_pushed_at: str | None = None
    failed_since: str | None = None
    error: str | None = None
    #: Since when its log lacks something, and no backup was made after that.
    gap_since: str | None = None
    #: How many gaps it ever had.
    gaps: int = 0
    #: Whether segments are given up for it now.
    is_dropping: bool = True
    #: The newest backup (pgBackRest's label), and the newest snapshot of the configuration (restic's id).
    label: str | None = None
    configuration: str | None = None
    configuration_at: str | None = None
    #: Whether pages had wrong checksums when that backup read them.
    damaged: bool = False
    #: The moment of the newest recovery point, and since when one waits for what it names to be there.
    point_at: str | None = None
    point_waits_since: str | None = None
    #: The last try to make a backup, and what came of it.
    backup_at: str | None = None
    backup_error: str | None = None


class ShippedLog:
    """What is known of a repository's log."""

    def __init__(self, spool: LogSpool, name: str) -> None:
        self.spool, self.name = spool, name
        self._path = spool.state / f"{name}.json"

    def read(self) -> State:
        """Its state. One that is not known, or cannot be read, needs a backup first."""
        try:
            found = json.loads(self._path.read_text("utf-8"))
            return State(**found)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError):
            log.warning("what repository %s has of the log is not known: a new backup is made", self.name)
        return State(gap_since=clock.now().isoformat(timespec="seconds"))

    @contextlib.contextmanager
    def changed(self) -> Iterator[State]:
        """Its state, to be changed: written at the end. Backup and worker take turns."""
        with open(self._path.with_suffix(".lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.read()
            before = asdict(state)
            yield state
            if asdict(state) != before:
                durable.replace_file(self._path, (json.dumps(asdict(state), indent=1) + "\n").encode())

    @contextlib.contextmanager
    def shipping(self) -> Iterator[bool]:
        """Whether we are the one who ships to it now; until the block ends."""
        with open(self._path.with_suffix(".shipping"), "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def missing(self, state: State) -> list[str]:
        """What waits and it has not had, in the order of the log; of a gap only the newest, to try."""
        had = set(state.pushed)
        names = [name for name in self.spool.names() if name not in had]
        if state.is_dropping:
            segments = [name for name in names if is_log_segment(name)]
            names = [name for name in names if not is_log_segment(name)] + segments[-1:]
        return names

    def lag_s(self) -> float:
        """How old the oldest segment is that waits for it; 0 if none does [s]."""
        since = [self.spool.since_s(name) for name in self.missing(self.read())]
        known = [each for each in since if each is not None]
        return max(0.0, clock.now().timestamp() - min(known)) if known else 0.0


class Shipper:
    """Ships the log to one repository. For one thread."""

    def __init__(self, data: Path, name: str) -> None:
        self.spool = LogSpool(data)
        self.log = ShippedLog(self.spool, name)
        self.name = name
        self._tool = PgBackRest(config_file(data, name))
        self._identity = identity_folder(data)
        self._retry_s = 0.0
        #: A push that did not end in time and could not be ended: it hangs in a call on a dead share.
        self._hanging: subprocess.Popen[str] | None = None

    def run(self) -> int:
        """Ship what waits, unless another process does; return how many segments. Failures are in the state."""
        if clock.monotonic_s() < self._retry_s or not self._is_free():
            return 0
        shipped = 0
        with self.log.shipping() as ours:
            while ours and (state := self.log.read()).ready and (names := self.log.missing(state)):
                try:
                    if self._push(names[0]):
                        self._pushed(names[0])
                        shipped += 1
                except PacsError as error:
                    self._failed(str(error))
                    break
        return shipped

    def _is_free(self) -> bool:
        if self._hanging is not None and self._hanging.poll() is None:
            return False
        self._hanging = None
        return True

    def _push(self, name: str) -> bool:
        """Push a segment; return False if it is none of ours any more."""
        path = self.spool.path(name)
        words = ("archive-push", str(path), f"--pg1-path={self._identity}", "--log-level-console=error")
        process = self._tool.start(*words)
        try:
            output, _ = process.communicate(timeout=PUSH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            self._hanging = process  # not waited for: a call on a dead share never ends
            raise BackupError(f"It has not taken a segment of the log in {PUSH_TIMEOUT_S:.0f} s.") from None
        if process.returncode != 0 and path.exists():
            raise BackupError(reason(output, process.returncode))
        return process.returncode == 0

    def _pushed(self, name: str) -> None:
        now = clock.now().isoformat(timespec="seconds")
        with self.log.changed() as state:
            waiting = set(self.spool.names())
            state.pushed = sorted({*state.pushed, name} & waiting)
            if is_log_segment(name):
                state.last_segment, state.last_pushed_at = name, now
                if state.is_dropping:
                    state.is_dropping = False
                    log.warning("repository %s takes the log; it has a gap until a new backup is made", self.name)
            if state.error:
                log.info("the log goes to repository %s again", self.name)
            state.failed_since, state.error = None, None
        self._retry_s = 0.0

    def _failed(self, error: str) -> None:
        self._retry_s = clock.monotonic_s() + RETRY_S
        with self.log.changed() as state:
            if state.error != error:
                log.error("the log does not go to repository %s: %s", self.name, error)
            state.failed_since = state.failed_since or clock.now().isoformat(timespec="seconds")
            state.error = error


def tidy(data: Path, names: list[str], room_bytes: int) -> list[str]:
    """Let go of what every repository has, and of the oldest when more waits than room_bytes; return who got a gap."""
    spool = LogSpool(data)
    spool.want(bool(names))
    for path in spool.state.glob("*.json"):
        if path.stem not in names:  # it is no repository any more
            path.unlink()
    if not names:
        return []
    spool.limit(room_bytes)
    logs = [ShippedLog(spool, name) for name in names]
    gaps: list[str] = []
    if spool.is_broken:
        gaps = [each.name for each in logs]
        for each in logs:
            _open_gap(each)
        spool.mend()
    _drop_shipped(spool, logs)
    # A tenth below what the archive_command takes, so that it never has to drop anything itself.
    while spool.size_bytes() > room_bytes * 9 // 10:
        states = [(each, each.read()) for each in logs]
        lacking = [(each, each.missing(state)) for each, state in states if not state.is_dropping]
        oldest = min((missing[0] for _each, missing in lacking if missing), default=None)
        if oldest is None:
            break
        for each, missing in lacking:
            if oldest in missing:
                _open_gap(each)
                gaps.append(each.name)
        _drop_shipped(spool, logs)
    return gaps


def _open_gap(shipped: ShippedLog) -> None:
    with shipped.changed() as state:
        state.gap_since = state.gap_since or clock.now().isoformat(timespec="seconds")
        state.gaps += 1
        state.is_dropping = True
    log.error(
        "too much of the log waits for repository %s: it is dropped, and a new backup made when it is back",
        shipped.name,
    )


def _drop_shipped(spool: LogSpool, logs: list[ShippedLog]) -> None:
    before = spool.names()  # first: what comes meanwhile is none of what is judged
    wanted = {name for each in logs for name in each.missing(each.read())}
    for name in before:
        if name not in wanted:
            spool.drop(name)
    waiting = set(spool.names())
    for each in logs:
        if set(each.read().pushed) - waiting:
            with each.changed() as state:
                state.pushed = sorted(set(state.pushed) & waiting)


def room_bytes(spool: LogSpool, reserve_bytes: int) -> int:
    """How much may wait: half of what the disk has beyond the reserve of the database, with what waits already."""
    status = os.statvfs(spool.folder if spool.folder.exists() else spool.folder.parent)
    return max(64 << 20, (status.f_bavail * status.f_frsize + spool.size_bytes() - reserve_bytes) // 2)


def gap_since(data: Path, name: str) -> datetime | None:
    """Since when a repository's log lacks something that no backup was made after; None if it is whole."""
    found = ShippedLog(LogSpool(data), name).read().gap_since
    return datetime.fromisoformat(found) if found else None
