"""`pacs dev`: a whole instance in one foreground command, on loopback, with a private PostgreSQL cluster.

It starts the same services as the appliance's units do, as children of its own, and starts again what dies. Its
children end with it, even when it is killed; a cluster that is left behind is adopted by the next start.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Annotated

import typer

from pacs.backup.standby_files import StandbyFiles
from pacs.cli.cluster import Cluster
from pacs.cli.dev_service import Service
from pacs.errors import DatabaseUnavailable, PacsError, SettingsError, StandbyError, UsageError
from pacs.index import database as index
from pacs.machine.identity import make_dicom_tls
from pacs.machine.timeline import begin_if_needed
from pacs.settings import load
from pacs.storage.looking_back import look_before_start
from pacs.storage.volume import IDENTITY_FILE, create_identity, read_identity


def dev(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="The data directory; made if it is not there.")] = None,
    dicom_port: Annotated[int, typer.Option(help="DICOM port on 127.0.0.1; 0 takes a free one.")] = 11112,
    http_port: Annotated[int, typer.Option(help="HTTP port on 127.0.0.1; 0 takes a free one.")] = 8042,
    dicom_tls_port: Annotated[
        int | None, typer.Option(help="Port for DICOM over TLS on 127.0.0.1, 2762 is the registered one; else none.")
    ] = None,
) -> None:
    """Run a whole PACS in the foreground, without root and without a VM, until Ctrl-C.

    It takes associations of any AE title from this machine, called AE title PACS. With
    PACS_ANY_DEVICE_FROM_LOOPBACK=0 only those of known devices, as the appliance does.
    """
    folder = (data or context.find_root().obj or Path("pacs-data")).absolute()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    with locked(folder):
        _require_copied(folder)

        def listen() -> tuple[socket.socket, socket.socket, socket.socket | None]:
            return (
                _listen(dicom_port), _listen(http_port), None if dicom_tls_port is None else _listen(dicom_tls_port),
            )  # fmt: skip

        # A standby serves nobody, so that it listens once it is promoted.
        sockets = listen() if StandbyFiles(folder).following() is None else None
        cluster = Cluster(folder, unprivileged_user(folder))
        cluster.before_start = lambda: _look_back(folder, cluster)
        cluster.start()
        try:
            _follow(folder, cluster, stop)
            if stop.is_set():
                return
            dicom, http, dicom_tls = sockets or listen()
            _prepare(folder)
            _run(folder, cluster, dicom, dicom_tls, http, stop)
        finally:
            cluster.stop()


def _require_copied(folder: Path) -> None:
    if StandbyFiles(folder).following() == "copying":
        raise StandbyError("The database has not come over whole. Give `pacs standby follow` again, then `pacs dev`.")


def _follow(folder: Path, cluster: Cluster, stop: threading.Event) -> None:
    """On a standby: keep following the archive until this node is promoted, or the end."""
    files = StandbyFiles(folder)
    if files.following() is None:
        return
    service = Service("standby", ["standby", "run"], {**os.environ, "PACS_DATA": str(folder)})
    try:
        service.start()
        service.wait_ready(stop)
        typer.echo(f"ready as a standby data={folder}")
        sys.stdout.flush()
        while files.following() is not None and not stop.wait(0.2):
            _restart_if_dead(cluster)
            if files.following() is not None:
                service.restart_if_dead()
    finally:
        service.ask_to_end()
        service.end()


def _look_back(folder: Path, cluster: Cluster) -> None:
    """Whether a disk went back in time, before the database writes anything: as pacs-identity does on the appliance."""
    settings = load(folder)
    if cluster.is_standby:  # its disks are written by the archive, whose marks they carry
        return
    try:
        notice = look_before_start(folder, (settings.tier1_root, settings.tier2_root))
        begin_if_needed(folder, notice, cluster.cluster, cluster.binaries)
    except PacsError as error:  # no reason not to start: the worker looks again
        typer.echo(f"error: it cannot be told whether a disk went back in time: {error}", err=True)


def _prepare(folder: Path) -> None:
    settings = load(folder)
    opened = index.Database(settings.conninfo)
    try:
        index.migrate(opened)
    finally:
        opened.close()
    make_dicom_tls(settings.tls_folder, socket.gethostname())


def _run(
    folder: Path,
    cluster: Cluster,
    dicom: socket.socket,
    dicom_tls: socket.socket | None,
    http: socket.socket,
    stop: threading.Event,
) -> None:
    environment = {"PACS_ANY_DEVICE_FROM_LOOPBACK": "1", **os.environ, "PACS_DATA": str(folder)}
    services = [
        *(
            Service(f"receiver {number + 1}", ["receiver", "run"], environment, dicom, dicom_tls)
            for number in range(load(folder).receivers)
        ),
        Service("web", ["web", "run"], environment, http),
        Service("worker", ["worker", "run"], environment),
    ]
    try:
        # The volumes of a new instance are made by the first service that opens it: one after the other.
        for service in services:
            service.start()
            service.wait_ready(stop)
        if not stop.is_set():
            tls = f"dicom-tls={dicom_tls.getsockname()[1]} " if dicom_tls else ""
            typer.echo(
                f"ready dicom={dicom.getsockname()[1]} http={http.getsockname()[1]} {tls}"
                f"aet={load(folder).ae_title} data={folder}"
            )
            sys.stdout.flush()
        while not stop.wait(0.2):
            _restart_if_dead(cluster)
            for service in services:
                service.restart_if_dead()
    finally:
        for service in services:
            service.ask_to_end()
        for service in services:
            service.end()


def _restart_if_dead(cluster: Cluster) -> None:
    """Start the cluster again if it has ended: what systemd does on the appliance."""
    if cluster.is_running():
        return
    typer.echo("PostgreSQL ended; it is started again", err=True)
    try:
        cluster.start()
    except DatabaseUnavailable as error:
        typer.echo(f"error: {error} It is tried again.", err=True)


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(f"Port {port} cannot be had: {error.strerror}. Take another, or 0 for a free one.") from error
    listening.listen(128)
    return listening


class locked:  # noqa: N801 (used as a function)
    """The data directory, made if need be, held against a second `pacs dev`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file: IO[bytes] | None = None

    def __enter__(self) -> None:
        try:
            (self.folder / "config").mkdir(parents=True, exist_ok=True)
            self.file = open(self.folder / "dev.lock", "wb")
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be used: {error.strerror}. Take another --data.") from error
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Another `pacs dev` runs on {self.folder}. End it, or take another --data.") from None
        if (self.folder / IDENTITY_FILE).exists():
            read_identity(self.folder)
        elif (self.folder / "postgresql").exists():
            raise SettingsError(f"{self.folder} has a cluster and no {IDENTITY_FILE}. Is it an instance?")
        else:
            create_identity(self.folder, ("state",))

    def __exit__(self, *exc: object) -> None:
        if self.file is not None:
            self.file.close()


def unprivileged_user(folder: Path) -> str | None:
    """As root, who PostgreSQL runs as: it refuses root. Raise SettingsError if that user cannot reach the folder."""
    if os.geteuid() != 0:
        return None
    name = next((each for each in (os.environ.get("SUDO_USER"), "postgres", "nobody") if each and _exists(each)), None)
    if name is None or name == "root":
        raise SettingsError("PostgreSQL does not run as root. Start `pacs dev` as an ordinary user.")
    for parent in reversed([folder, *folder.parents]):
        if subprocess.run(["test", "-x", str(parent)], user=name, check=False).returncode != 0:
            raise SettingsError(
                f"PostgreSQL runs as user {name}, to whom {parent} is closed. "
                f"Open it (`chmod o+x {parent}`), or take another --data."
            )
    return name


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
