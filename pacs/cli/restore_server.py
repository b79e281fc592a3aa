"""What a restore stops and starts: the services and the database, of `pacs dev` or of the appliance."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from pacs.cli.cluster import Cluster
from pacs.cli.context import acting_as_owner
from pacs.cli.dev import locked, unprivileged_user
from pacs.errors import RestoreError
from pacs.settings import Settings

_DATABASE = "postgresql@17-main.service"
#: What works on an instance, on the appliance. The sockets first, so that nothing starts again by itself.
_UNITS = (
    "pacs-*.timer", "pacs-dicom.socket", "pacs-dicom-tls.socket", "pacs-receiver@*.service", "pacs-worker.service",
    "pacs-web.service", "pacs-standby.service", "pacs-migrate.service", "pacs-backup.service",
    "pacs-backup-due.service", "pacs-drill.service", "pacs-scrub.service", "pacs-reconcile.service",
    "pacs-selftest.service",
)  # fmt: skip
#: What is started again in the end, and what takes up other keys.
_START = (
    _DATABASE, "pacs-migrate.service", "pacs-dicom.socket", "pacs-dicom-tls.socket", "pacs-web.service",
    "pacs-worker.service", "pacs-standby.service",
)  # fmt: skip
_RELOAD = ("nginx.service", "ssh.service")


class DevServer:
    """The private cluster of an instance of `pacs dev`, which must be ended itself."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.user = unprivileged_user(data)
        self._cluster = Cluster(data, self.user)

    @property
    def cluster(self) -> Path:
        """Where the database's cluster is."""
        return self._cluster.cluster

    @property
    def binaries(self) -> Path:
        """PostgreSQL's programs."""
        return self._cluster.binaries

    def as_service(self) -> AbstractContextManager[None]:
        """Whoever has the data directory."""
        return acting_as_owner(self.data)

    def start(self) -> None:
        """Start the database."""
        self._cluster.start()

    def stop(self) -> None:
        """Stop the database."""
        self._cluster.stop()


class ApplianceServer:
    """The appliance's units. Root's."""

    user = "postgres"

    def __init__(self, settings: Settings) -> None:
        self.data = settings.data

    @property
    def cluster(self) -> Path:
        """Where the database's cluster is."""
        return self.data / "postgresql" / "17" / "main"

    @property
    def binaries(self) -> Path:
        """PostgreSQL's programs."""
        return Path("/usr/lib/postgresql/17/bin")

    def as_service(self) -> AbstractContextManager[None]:
        """The user `pacs`."""
        return as_service(self.data)

    def start(self) -> None:
        """Start the database."""
        _systemctl("start", _DATABASE)

    def stop(self) -> None:
        """Stop the database."""
        _systemctl("stop", _DATABASE)


def _of_service(data: Path) -> Path:
    """A folder that is the service's: on the appliance most of the state's are root's (pacs/machine/claim.py)."""
    journal = data / "journal"
    return journal if journal.exists() else data


def as_service(data: Path) -> AbstractContextManager[None]:
    """Act as the service's user in the block: what is written is what it can read."""
    return acting_as_owner(_of_service(data))


@contextlib.contextmanager
def service_of(data: Path, folder: Path) -> Iterator[None]:
    """Act as the service's user in the block, and have a folder be that user's."""
    if os.geteuid() == 0 and data.exists():
        owner = _of_service(data).stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
    with acting_as_owner(folder):
        yield


def _systemctl(*words: str) -> None:
    done = subprocess.run(
        ["systemctl", *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )  # fmt: skip
    if done.returncode != 0:
        raise RestoreError(f"systemctl {' '.join(words)} failed: {done.stderr.strip()[-300:]}")


def service_user(settings: Settings) -> str:
    """Whom other nodes log in as: the service's user."""
    return "pacs" if is_appliance(settings) else getpass.getuser()


def is_appliance(settings: Settings) -> bool:
    """Whether the database is the system's own."""
    return bool(settings.database)


def start_services() -> None:
    """Start what works on an instance, on the appliance, its timers too."""
    _systemctl("start", *_START, "pacs-storage.target", "timers.target")
    _systemctl("try-reload-or-restart", *_RELOAD)


@contextlib.contextmanager
def stopped(settings: Settings) -> Iterator[DevServer | ApplianceServer]:
    """What a restore works on, with nothing else at work on it in the block; afterwards the services run again.

    Of `pacs dev` the database is stopped in the end: `pacs dev` starts it. Raise UsageError if that is running.
    """
    if is_appliance(settings):
        server = ApplianceServer(settings)
        _systemctl("stop", *_UNITS)
        yield server
        start_services()
        return
    data = settings.data
    with locked(data):  # which also makes it an instance, if it is none yet
        dev = DevServer(data)
        try:
            yield dev
        finally:
            dev.stop()
