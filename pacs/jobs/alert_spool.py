"""Alerts on their way: written down durably, sent when their receiver takes them, and only then forgotten.

    DATA/alerts/<when>.<way>     what waits: a mail, a webhook's body, messages of syslog
    DATA/alerts/state.json       what was told of which matter, when the last weekly summary was, how sending went

A receiver that is away loses nothing and blocks nothing. What was sent while we were killed may come twice, with the
same id. What waits for more than two weeks is dropped, and so are the oldest of more than 200. Where the state's disk
cannot be written to, which is a thing to tell, all of this goes to the folder of what need not outlive a restart.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pacs import clock, settings
from pacs.errors import SettingsError
from pacs.jobs.alert_way import Alert, AlertFailed, AlertRefused, Way
from pacs.model.alerts import Told
from pacs.storage import durable
from pacs.storage.holding import holding

log = logging.getLogger(__name__)

FOLDER = "alerts"
#: What was sent and cannot be removed: names of files, in the folder of what need not outlive a restart.
_GONE = "gone"
KEPT_FOR, KEPT_MAX = timedelta(days=14), 200


_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class WayState:
    """How sending went, of one way."""

    sent_at: datetime | None = None
    error: str = ""
    failed_since: datetime | None = None


@dataclass
class State:
    """What is known between two looks."""

    looked_at: datetime = _NEVER
    matters: dict[str, Told] = field(default_factory=dict)
    weekly_at: datetime | None = None
    #: When the mailbox that waits for a sign of life last got one.
    alive_at: datetime | None = None
    #: Name of a check → until when nothing is told of it.
    held: dict[str, datetime] = field(default_factory=dict)
    ways: dict[str, WayState] = field(default_factory=dict)


class Spool:
    """The alerts of an instance that wait, and what was told."""

    def __init__(self, data: Path) -> None:
        self.data = data
        try:
            runtime = settings.load(data).runtime_folder
        except SettingsError:  # which is told of, too
            runtime = data / "run"
        self.folders = (data / FOLDER, runtime / FOLDER)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the spool. Raise AlertFailed if another one does."""
        with holding(self._folder(), AlertFailed("Alerts are being sent just now. Try again in a minute.")):
            yield

    def _folder(self) -> Path:
        for folder in self.folders:
            with suppress(OSError):
                folder.mkdir(mode=0o700, exist_ok=True)
                return folder
        raise AlertFailed(f"Nothing can be written down, at {' or '.join(map(str, self.folders))}. Look at the disks.")

    def state(self) -> State:
        """What is known; nothing if it cannot be read: then it is told again."""
        found = [state for folder in self.folders if (state := _read(folder / "state.json")) is not None]
        return max(found, key=lambda each: each.looked_at, default=State())

    def put_state(self, state: State) -> None:
        """Write it down."""
        text = json.dumps(asdict(state), default=lambda value: value.isoformat(), indent=1)
        self._write("state.json", (text + "\n").encode())

    def add(self, way: Way, alert: Alert) -> Path:
        """Put an alert into the spool, durably."""
        path = self._write(f"{clock.now():%Y%m%dT%H%M%S_%f}.{way.name}", way.compose(alert))
        for old in self.waiting(way.name)[:-KEPT_MAX]:
            self._drop(old)
        return path

    def waiting(self, way: str) -> list[Path]:
        """What waits for a way, oldest first."""
        found = (path for each in self.folders for path in each.glob(f"*.{way}") if path.name not in self._gone())
        return sorted(found, key=lambda path: path.name)

    def send(self, way: Way) -> int:
        """Send what waits; return how many went. One that is refused stays behind, and the others go.

        Raise AlertFailed with the reason if any could not be sent.
        """
        waiting = self.waiting(way.name)
        if not waiting:
            return 0
        sent: list[Path] = []
        refused = ""
        try:
            with way.opened() as deliver:
                for path in waiting:
                    try:
                        deliver(path.read_bytes())
                    except AlertRefused as error:
                        refused = str(error)
                        self._drop_if_old(path)
                        continue
                    sent.append(path)
        except AlertFailed:
            if not way.acknowledges:
                sent.clear()
            raise
        finally:
            for path in sent:
                self._forget(path)
        if refused:
            raise AlertFailed(refused)
        return len(sent)

    def drop_old(self, way: str) -> None:
        """Let go of what has waited for too long."""
        for path in self.waiting(way):
            self._drop_if_old(path)

    def _write(self, name: str, content: bytes) -> Path:
        reason: OSError | None = None
        for folder in self.folders:
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
                durable.replace_file(folder / name, content, 0o600)
            except OSError as error:
                reason = error
                continue
            return folder / name
        raise AlertFailed(f"An alert cannot be written down: {reason}. Look at the disks.") from reason

    def _drop_if_old(self, path: Path) -> None:
        if clock.now().timestamp() - path.stat().st_mtime > KEPT_FOR.total_seconds():
            self._drop(path)

    def _drop(self, path: Path) -> None:
        log.error("an alert that could not be sent is dropped", extra={"path": path.name})
        self._forget(path)

    def _forget(self, path: Path) -> None:
        """Remove what was sent. On a disk that turned read-only it stays, and is noted as gone elsewhere."""
        try:
            path.unlink(missing_ok=True)
        except OSError:
            self._write_gone({*self._gone(), path.name})

    def _gone(self) -> set[str]:
        with suppress(OSError):
            return set((self.folders[1] / _GONE).read_text("ascii").split())
        return set()

    def _write_gone(self, names: set[str]) -> None:
        with suppress(OSError):
            self.folders[1].mkdir(mode=0o700, exist_ok=True)
            (self.folders[1] / _GONE).write_text("\n".join(sorted(names)), "ascii")


def _read(path: Path) -> State | None:
    try:
        found = json.loads(path.read_text("utf-8"))
        told = {name: Told(**_with_times(each)) for name, each in found.pop("matters").items()}
        ways = {name: WayState(**_with_times(each)) for name, each in found.pop("ways").items()}
        held = {name: datetime.fromisoformat(each) for name, each in found.pop("held").items()}
        return State(matters=told, ways=ways, held=held, **_with_times(found))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        log.warning("what was told is not known any more: it is told again", extra={"path": path})
        return None


def _with_times(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        is_time = name.endswith("_at") or "since" in name
        if is_time and isinstance(value, list):
            found[name] = tuple(map(datetime.fromisoformat, value))
        else:
            found[name] = datetime.fromisoformat(value) if value and is_time else value
    return found
