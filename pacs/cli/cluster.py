"""The private PostgreSQL cluster of `pacs dev`: made, adopted or started, and stopped.

It listens on a Unix socket in DIR/run only. A postmaster that outlived a killed `pacs dev` is adopted. PostgreSQL
does not run as root: then everything of `pacs dev` runs as an ordinary user.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from pacs.backup.log_spool import FOLDER as SPOOL
from pacs.backup.log_spool import archive_command
from pacs.errors import DatabaseUnavailable, DataTooNew, SettingsError

_START_TIMEOUT_S = 60
#: So much of the log is kept for a standby that is away; then it must be copied anew.
_SLOT_KEEPS = "4GB"


def find_binaries() -> Path:
    """The folder of the newest PostgreSQL server on this machine."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0)
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    raise SettingsError("There is no PostgreSQL server here. Install it: `apt-get install postgresql`.")


class Cluster:
    """The cluster in DIR/postgresql/main, its socket in DIR/run."""

    def __init__(self, data: Path, user: str | None = None, before_start: Callable[[], object] = lambda: None) -> None:
        """user is whom PostgreSQL runs as; None for whoever we are. before_start is called when it does not run yet."""
        self.user, self.before_start = user, before_start
        self.folder = data / "postgresql"
        self.cluster = self.folder / "main"
        self.sockets = data / "run"
        self.spool = data / SPOOL
        self.log = data / "postgresql.log"
        self.binaries = find_binaries()

    def start(self) -> None:
        """Make the cluster if there is none, start it if it is not running, make the database if it lacks."""
        self.sockets.mkdir(exist_ok=True, mode=0o700)
        self.folder.mkdir(exist_ok=True, mode=0o700)
        self.spool.mkdir(exist_ok=True, mode=0o700)
        self.log.touch(mode=0o600)
        if self.user:
            for path in (self.sockets, self.folder, self.spool, self.log):
                shutil.chown(path, self.user)
        if len(str(self.sockets.resolve())) > 90:
            raise SettingsError(f"{self.sockets} is too long for a Unix socket (90 characters). Take a shorter DIR.")
        self._initialise()
        if not self._answers():
            self._clear_stale_pid()
            self.before_start()
            self._start_patiently()
        if self.is_standby:  # it is the archive's, and read only
            return
        self._wait_until_writable()
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = 'pacs'").fetchone() is None:
                connection.execute("CREATE DATABASE pacs")

    @property
    def is_standby(self) -> bool:
        """Whether it follows another cluster."""
        return (self.cluster / "standby.signal").exists()

    def _wait_until_writable(self) -> None:
        """Until a recovery is over, as at the beginning of a new timeline."""
        ends = time.monotonic() + _START_TIMEOUT_S
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            while connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
                if time.monotonic() > ends:
                    raise DatabaseUnavailable(f"PostgreSQL does not end its recovery. See {self.log}.")
                time.sleep(0.05)

    def _start_patiently(self) -> None:
        """Start it; after a kill of the postmaster its last children may hold the shared memory for a while yet."""
        ends = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self._control("start", "--wait", "-l", str(self.log), "-o", self._options())
                return
            except DatabaseUnavailable:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.5)

    def is_running(self) -> bool:
        """Whether there is a postmaster. It need not answer."""
        pid = self._pid_in_file()
        return pid is not None and self._is_ours(pid)

    def stop(self) -> None:
        """End the cluster, its connections too."""
        if self.is_running():
            self._control("stop", "--wait", "-m", "fast")

    def _initialise(self) -> None:
        version = self.cluster / "PG_VERSION"
        if version.exists():
            ours = self.binaries.parts[-2]
            if ours.isdigit() and version.read_text().strip() != ours:
                raise DataTooNew(
                    f"The cluster in {self.folder} is of PostgreSQL {version.read_text().strip()}, "
                    f"this machine has {ours}. Nothing was touched. Install that version."
                )
            return
        # initdb writes PG_VERSION early; so it works in a folder of its own, which gets its name when it is done.
        half = self.folder / "new"
        shutil.rmtree(half, ignore_errors=True)
        words = ["-U", "pacs", "--locale=C", "--encoding=UTF8", "--data-checksums"]
        # Trust is over a socket in DIR/run, which only its owner can reach.
        self._run([self.binaries / "initdb", "-D", half, *words, "--auth=trust"], "initdb")
        half.rename(self.cluster)

    def _options(self) -> str:
        return (
            f"-c listen_addresses='' -c unix_socket_directories='{self.sockets.resolve()}' "
            f"-c archive_mode=on -c archive_timeout=60 -c archive_command='{archive_command(self.spool.resolve())}' "
            "-c unix_socket_permissions=0700 -c log_min_messages=warning -c log_min_error_statement=panic "
            f"-c max_slot_wal_keep_size={_SLOT_KEEPS} "
            "-c log_parameter_max_length=0 -c log_parameter_max_length_on_error=0 -c shared_buffers=64MB"
        )

    def _conninfo(self, database: str) -> str:
        return f"host={self.sockets.resolve()} dbname={database} user=pacs connect_timeout=5"

    def _answers(self) -> bool:
        ends = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self._conninfo("postgres")).close()
                return True
            except psycopg.OperationalError as error:
                # One that recovers from a kill, or is still starting, is waited for; one that is not there isn't.
                if "starting up" not in str(error) and "recovery" not in str(error):
                    return False
                if time.monotonic() > ends:
                    raise DatabaseUnavailable(f"PostgreSQL does not come up. See {self.log}.") from error
                time.sleep(0.1)

    def _clear_stale_pid(self) -> None:
        """End what is left of a killed postmaster, if this cluster's is there and does not answer."""
        pid = self._pid_in_file()
        if pid is None:
            return
        if self._is_ours(pid):
            self._control("stop", "--wait", "-m", "immediate")
        elif Path(f"/proc/{pid}").exists():
            # Another process has the number by now, or nobody has waited for the dead one: PostgreSQL would not start.
            # With its file goes what keeps it from starting beside the old one's children: so they end first.
            ends = time.monotonic() + _START_TIMEOUT_S
            while any(self._is_ours(int(path.name)) for path in Path("/proc").glob("[0-9]*")):
                if time.monotonic() > ends:
                    raise DatabaseUnavailable(f"Processes of an earlier PostgreSQL are left. See {self.log}.")
                time.sleep(0.1)
            (self.cluster / "postmaster.pid").unlink(missing_ok=True)

    def _pid_in_file(self) -> int | None:
        try:
            return int((self.cluster / "postmaster.pid").read_text().split("\n")[0])
        except (FileNotFoundError, ValueError):
            return None

    def _is_ours(self, pid: int) -> bool:
        """Whether a process is one of this cluster's, and no dead one that nobody has waited for."""
        try:
            return Path(f"/proc/{pid}/cwd").resolve(strict=True) == self.cluster.resolve()
        except OSError:
            return False

    def _control(self, *words: str) -> None:
        self._run([self.binaries / "pg_ctl", "-D", self.cluster, "-s", *words], f"pg_ctl {words[0]}, see {self.log}")

    def _run(self, command: list[str | Path], what: str) -> None:
        # The log goes to a file: a pipe that the postmaster inherits would never end.
        with open(os.devnull, "rb") as nothing:
            result = subprocess.run(
                [str(word) for word in command], stdin=nothing, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, check=False, timeout=180, start_new_session=True, user=self.user, cwd=self.folder,

            )  # fmt: skip
        if result.returncode != 0:
            raise DatabaseUnavailable(f"{what} failed: {result.stderr.strip()[-400:]}")
