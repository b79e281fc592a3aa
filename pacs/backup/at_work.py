"""Who backs up here now, and how far it is: one at a time to a repository, and others as they like.

A backup may hang in a call on a dead share. It then holds up no other repository's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.backup.pgbackrest import Progress
from pacs.errors import BackupError
from pacs.settings import load

_TELL_S = 1.0


@contextlib.contextmanager
def only_one(data: Path, name: str) -> Iterator[None]:
    """Be the one who backs up to a repository while the block runs. Raise BackupError if somebody else does."""
    path = _file(data, name, "lock")
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with open(path, "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"A backup to {name} is at work. Wait for it; `pacs backup status` shows it.") from None
        yield


def is_at_work(data: Path, name: str) -> bool:
    """Whether somebody backs up to a repository now."""
    try:
        with only_one(data, name):
            return False
    except BackupError:
        return True


@contextlib.contextmanager
def progress_shown(data: Path, name: str, progress: Progress | None) -> Iterator[Progress]:
    """Tell of the progress, and leave it where `at_work` finds it."""
    file, started, told_s = _file(data, name, "json"), clock.now(), 0.0

    def shown(percent: float) -> None:
        nonlocal told_s
        if progress is not None:
            progress(percent)
        if clock.monotonic_s() > told_s + _TELL_S:
            told_s = clock.monotonic_s()
            file.write_text(json.dumps({"percent": percent, "since": started.isoformat(timespec="seconds")}))

    try:
        yield shown
    finally:
        file.unlink(missing_ok=True)


def at_work(data: Path, name: str) -> dict[str, Any] | None:
    """The backup of the database to a repository that is at work: percent, since; None if none is, or none is far."""
    try:
        found: dict[str, Any] = json.loads(_file(data, name, "json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if is_at_work(data, name) else None


def _file(data: Path, name: str, suffix: str) -> Path:
    return load(data).runtime_folder / f"backup-{name}.{suffix}"
