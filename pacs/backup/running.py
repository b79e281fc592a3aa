"""A run of the backup: the cluster and the configuration to one repository, and what has expired there goes.

Never two at once to one. While it runs the log is shipped here too, if the worker does not: a backup counts only with
its log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pacs import clock
from pacs.backup import cluster_backup, points
from pacs.backup.at_work import only_one, progress_shown
from pacs.backup.cluster_backup import Kind, Label
from pacs.backup.configuration import EXCLUDED, Configuration, Snapshot
from pacs.backup.log_shipping import ShippedLog, Shipper, State
from pacs.backup.log_spool import LogSpool
from pacs.backup.pgbackrest import Progress, config_file
from pacs.backup.repositories import Repository, open_volume, repositories
from pacs.errors import BackupError, NotFound, PacsError
from pacs.model.schedule import is_open
from pacs.storage.keyring import Keyring
from pacs.storage.kinds import Volume
from pacs.storage.volume import appliance_ids

log = logging.getLogger(__name__)

#: When a backup is late, and how often a failed one, or one after a gap, is tried again.
LATE = timedelta(hours=26)
DAILY = timedelta(hours=20)
RETRY = timedelta(minutes=30)
#: How long what waits of the log may take before a backup begins all the same [s].
_PATIENCE_S = 120.0
#: A change of the configuration waits at most so long for its snapshot [s].
_CONFIGURATION_S = 120.0
#: The worker's word that a backup is due, in the runtime folder.
WANTED_FILE = "backup-wanted"


@dataclass(frozen=True)
class Done:
    """What a run made."""

    backup: Label
    configuration: Snapshot


def named(data: Path, name: str | None) -> list[Repository]:
    """The repository of that name, or all. Raise NotFound if there is none."""
    found = [each for each in repositories(data) if name in (None, each.name)]
    if not found:
        what = f"repository {name}" if name else "backup repository"
        raise NotFound(f"There is no {what}. `pacs backup repository add` makes one, `… list` shows them.")
    return found


def is_due(state: State, now: datetime, windows: tuple[str, ...] = ()) -> bool:
    """Whether a repository needs a backup now, without waiting for its night: it has none, a gap, or a late one.

    One with windows has its nights there: its backup is late sooner.
    """
    if not is_open(windows, now.astimezone()):
        return False
    tried = datetime.fromisoformat(state.backup_at) if state.backup_at else None
    if tried is None:
        return True
    if tried > now + points.CLOCKS_DIFFER:  # a clock was wrong: nothing that it said counts
        return True
    if now - tried < RETRY or (state.is_dropping and state.error):  # tried a moment ago, or known to be away
        return False
    return state.backup_error is not None or state.gap_since is not None or now - tried > (DAILY if windows else LATE)


def has_changed(data: Path, state: State) -> bool:
    """Whether configuration or journal changed after the newest snapshot, which needs no look at the repository."""
    if not state.configuration_at:
        return False  # the first comes with the first backup
    since = datetime.fromisoformat(state.configuration_at).timestamp()
    if 0 <= clock.now().timestamp() - since < _CONFIGURATION_S:
        return False
    if since > clock.now().timestamp() + points.CLOCKS_DIFFER.total_seconds():
        return True  # a clock was wrong: nobody knows what changed since
    return any(changed_at(data / part) > since for part in ("config", "journal"))


def changed_at(folder: Path) -> float:
    """When the newest file below a folder was written, as far as we may look [seconds since 1970]."""
    newest = 0.0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if str(Path(parent, name).relative_to(folder.parent)) not in EXCLUDED]
        for name in files:
            with contextlib.suppress(OSError):
                newest = max(newest, Path(parent, name).stat().st_mtime)
    return newest


def due(data: Path) -> dict[str, bool]:
    """The repositories that need something now, and whether that is a backup of the database too."""
    spool, found = LogSpool(data), {}
    for each in repositories(data):
        state = ShippedLog(spool, each.name).read()
        if is_due(state, clock.now(), each.windows):
            found[each.name] = True
        elif has_changed(data, state) and not state.error:
            found[each.name] = False
    return found


def _files(data: Path) -> Path:
    return config_file(data, "any").parent


def run_configuration(data: Path, repository: Repository) -> Snapshot:
    """Make a snapshot of the configuration only. Raise BackupError."""
    keyring = Keyring.open(data)
    with only_one(data, repository.name), _opened(data, repository, keyring):
        at = clock.now()
        snapshot = Configuration(repository, keyring, _files(data)).back_up(data)
        with ShippedLog(LogSpool(data), repository.name).changed() as state:
            state.configuration, state.configuration_at = snapshot.snapshot_id, at.isoformat()
        return snapshot


def run_backup(data: Path, repository: Repository, kind: Kind | None = None, progress: Progress | None = None) -> Done:
    """Back up to a repository. What was there counts as before. Raise BackupError, or what says that it is away."""
    keyring, spool = Keyring.open(data), LogSpool(data)
    with only_one(data, repository.name):
        spool.want(True)
        shipped, started = ShippedLog(spool, repository.name), clock.now()
        try:
            with _opened(data, repository, keyring) as volume:
                done = _run(data, repository, keyring, shipped, kind, progress)
                labels = [each.label for each in cluster_backup.backups(data, repository.name)]
                points.expire(volume, keyring, labels)
        except (PacsError, OSError) as error:
            _note(shipped, started, error=str(error))
            if isinstance(error, PacsError):
                raise
            raise BackupError(f"The backup failed: {error}. Is the repository full or gone?") from error
        _note(shipped, started)
        log.info("backup done", extra={"repository": repository.name, "label": done.backup.label})
        return done


def _run(
    data: Path,
    repository: Repository,
    keyring: Keyring,
    shipped: ShippedLog,
    kind: Kind | None,
    progress: Progress | None,
) -> Done:
    cluster_backup.write_config(data, repositories(data), keyring)
    cluster_backup.require_config(data, repository, keyring)
    cluster_backup.mend_copied(repository)
    cluster_backup.prepare(data, repository.name)
    with shipped.changed() as state:
        state.ready, state.is_dropping = True, False  # it was reached just now
        gaps = state.gaps
    _ship_what_waits(data, shipped)
    with _shipping(data, repository.name), progress_shown(data, repository.name, progress) as shown:
        made = cluster_backup.backup(data, repository.name, kind, shown)
    at = clock.now()
    snapshot = Configuration(repository, keyring, _files(data)).back_up(data)
    with shipped.changed() as state:
        state.label, state.configuration, state.configuration_at = made.label, snapshot.snapshot_id, at.isoformat()
        state.damaged = made.damaged
        if state.gaps == gaps:  # one that opened meanwhile is not closed by a backup that began before
            state.gap_since = None
    return Done(made, snapshot)


@contextlib.contextmanager
def _opened(data: Path, repository: Repository, keyring: Keyring) -> Iterator[Volume]:
    """The repository, proven to be it: where a share is not mounted there is a folder too, on the system's disk."""
    volume = open_volume(repository, keyring, appliance_ids(data))
    try:
        volume.require_writable()
        yield volume
    finally:
        volume.close()


def _note(shipped: ShippedLog, started: datetime, error: str | None = None) -> None:
    with shipped.changed() as state:
        state.backup_at, state.backup_error = started.isoformat(timespec="seconds"), error


def _ship_what_waits(data: Path, shipped: ShippedLog) -> None:
    """Raise BackupError if the repository does not take the log: pgBackRest would wait for minutes to say so."""
    shipper, ends_s = Shipper(data, shipped.name), clock.monotonic_s() + _PATIENCE_S
    while clock.monotonic_s() < ends_s and shipped.missing(shipped.read()):
        shipper.run()
        if error := shipped.read().error:
            raise BackupError(f"The repository does not take the database's log: {error}")
        time.sleep(0.1)


@contextlib.contextmanager
def _shipping(data: Path, name: str) -> Iterator[None]:
    """Ship the log to a repository while the block runs, whenever nobody else does."""
    stop, shipper = threading.Event(), Shipper(data, name)

    def work() -> None:
        while not stop.is_set():
            try:
                shipper.run()
            except (PacsError, OSError) as error:  # pgBackRest says in the end that its log did not come
                log.error("the log does not go to repository %s: %s", name, error)
            stop.wait(0.3)

    thread = threading.Thread(target=work, name="log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
