"""Instances to test: a private PostgreSQL cluster a session, a fresh database and data directory a test, `pacs dev`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from pacs.cli.cluster import Cluster
from pacs.cli.dev import unprivileged_user
from pacs.cli.instance import Instance, open_instance
from pacs.index import database as index
from pacs.storage.volume import create_identity

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path, as Unix sockets need it, that PostgreSQL's user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="pacs-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(short_folder: Path) -> Iterator[Cluster]:
    """A running PostgreSQL cluster."""
    data = short_folder / "cluster"
    data.mkdir()
    running = Cluster(data, unprivileged_user(data))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def conninfo(cluster: Cluster) -> Iterator[str]:
    """The connection string of a new, empty database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    base = f"host={cluster.sockets} user=pacs"
    with psycopg.connect(f"{base} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield f"{base} dbname={name}"
    with psycopg.connect(f"{base} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def new_instance(conninfo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Makes an empty instance's data directory whose database is `conninfo`, migrated."""

    def make() -> Path:
        data = tmp_path / "data"
        (data / "config").mkdir(parents=True)
        create_identity(data, ("state",))
        (data / "config" / "pacs.toml").write_text(f'database = "{conninfo}"\nsettle_s = 0\n')
        database = index.Database(conninfo)
        index.migrate(database)
        database.close()
        return data

    return make


@pytest.fixture
def instance(new_instance: Callable[[], Path]) -> Iterator[Instance]:
    """An opened, empty instance with two tiers. Studies settle at once."""
    with open_instance(new_instance()) as opened:
        yield opened


@dataclass
class Dev:
    """A running `pacs dev`."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    dicom_port: int = 0
    http_port: int = 0
    #: The port for DICOM over TLS, if it is started with `words = ("--dicom-tls-port", "0")`.
    dicom_tls_port: int = 0
    words: tuple[str, ...] = ()
    #: What runs the commands: a namespace, say.
    prefix: tuple[str, ...] = ()

    def start(self, timeout_s: float = 240) -> Dev:
        """Start it and wait for `ready`."""
        before = len(self.log())
        with self._log_file.open("a") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "pacs.cli.main", "dev", "--data", str(self.data)]
                + ["--dicom-port", "0", "--http-port", "0", *self.words],
                stdout=log, stderr=log, env={**os.environ, **self.environment}, start_new_session=True,
            )  # fmt: skip
        ends = time.monotonic() + timeout_s
        while "ready dicom=" not in (line := self.log()[before:]):
            if self.process.poll() is not None or time.monotonic() > ends:
                raise AssertionError(f"pacs dev did not get ready: {line[-2000:]}")
            time.sleep(0.05)
        found = re.search(r"ready dicom=(\d+) http=(\d+)", line)
        assert found is not None
        self.dicom_port, self.http_port = int(found[1]), int(found[2])
        tls = re.search(r"dicom-tls=(\d+)", line)
        self.dicom_tls_port = int(tls[1]) if tls else 0
        return self

    def log(self) -> str:
        """What it and its services have logged."""
        return self._log_file.read_text() if self._log_file.exists() else ""

    @property
    def _log_file(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    def kill_all(self) -> None:
        """SIGKILL to every process of the instance, PostgreSQL's too, in no order."""
        assert self.process is not None
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)

    def pids(self) -> list[int]:
        """The processes of this instance: those that name its data directory, and the children of its postmaster."""
        postmaster = self.data / "postgresql" / "main" / "postmaster.pid"
        roots = {self.process.pid} if self.process else set()
        if postmaster.exists():
            roots.add(int(postmaster.read_text().split()[0]))
        parents = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
        found = set(roots)
        while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
            found |= more
        return sorted(found, reverse=True)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)

    def pacs(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `pacs` command on it."""
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "pacs.cli.main", "--data", str(self.data), *words],
            capture_output=True, text=True, check=check, env={**os.environ, **self.environment},
        )  # fmt: skip


@pytest.fixture
def new_dev(short_folder: Path) -> Iterator[Callable[..., Dev]]:
    """Makes instances of `pacs dev`, not yet started; ends them after the test.

    With one receiver, unless PACS_RECEIVERS says otherwise: many tests stop, kill or measure it.
    """
    made: list[Dev] = []

    def make(**environment: str) -> Dev:
        made.append(Dev(short_folder / f"dev{uuid.uuid4().hex[:6]}", {"PACS_RECEIVERS": "1", **environment}))
        return made[-1]

    yield make
    for each in made:
        each.stop()
        shutil.rmtree(each.data, ignore_errors=True)


@pytest.fixture(scope="module")
def dev(short_folder: Path) -> Iterator[Dev]:
    """A running `pacs dev` that a module's tests share."""
    running = Dev(short_folder / f"dev{uuid.uuid4().hex[:6]}").start()
    yield running
    running.stop()
    shutil.rmtree(running.data, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DICOM files; skips where it isn't."""
    if not (SHARED_DATA / "MANIFEST.tsv").exists():
        pytest.skip("../shared/data is not here")
    return SHARED_DATA
