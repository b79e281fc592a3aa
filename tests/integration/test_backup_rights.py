"""The appliance's rights: PostgreSQL is one user, the service another, and only a backup may read the other's files.

One user writes all that is in a repository, so that a share with one user does."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pacs.cli.cluster import Cluster
from pacs.index import rights
from pacs.storage.volume import create_identity
from tests.faults.process import wait_for

SERVICE = pwd.getpwnam("nobody")


class Appliance:
    """An instance whose cluster is PostgreSQL's user's; commands run as the service."""

    def __init__(self, folder: Path) -> None:
        self.data, self.runtime, self.place = folder / "data", folder / "run", folder / "repository"
        for path in (self.data / "config", self.data / "journal", self.data / "identity", self.runtime, self.place):
            path.mkdir(parents=True)
        folder.chmod(0o755)
        self.data.chmod(0o755)
        create_identity(self.data, ("state",))
        self.cluster = Cluster(self.data, "postgres")
        self.cluster.start()
        self._grant()
        (self.data / "config" / "pacs.toml").write_text(f'database = "host={self.data}/run dbname=pacs user=service"\n')
        (self.data / "identity" / "key.pem").write_text("root's own")
        (self.data / "identity").chmod(0o700)
        for name in ("tier1", "tier2"):
            (self.data / name).mkdir()
        mine = (self.data / "config", self.data / "config" / "pacs.toml", self.data / "volume.json", self.runtime)
        for path in (*mine, self.place, self.data / "journal", self.data / "tier1", self.data / "tier2"):
            os.chown(path, SERVICE.pw_uid, SERVICE.pw_gid)
        spool = self.data / "pgbackrest-spool"  # as pacs/machine/claim.py has it
        os.chown(spool, pwd.getpwnam("postgres").pw_uid, SERVICE.pw_gid)
        spool.chmod(0o2770)

    def _grant(self) -> None:
        sockets = self.data / "run"
        with psycopg.connect(f"host={sockets} dbname=postgres user=pacs", autocommit=True) as connection:
            connection.execute("CREATE ROLE service LOGIN")
            connection.execute("ALTER DATABASE pacs OWNER TO service")
            for statement in rights.STATEMENTS:
                connection.execute(statement.replace("TO pacs", "TO service").encode())
        sockets.chmod(0o755)
        (sockets / ".s.PGSQL.5432").chmod(0o777)

    def words(self, *words: str, rights: str = "") -> list[str]:
        """The command line of a `pacs` command with the service's rights, as roles/pacs has it."""
        user = [f"--reuid={SERVICE.pw_uid}", f"--regid={SERVICE.pw_gid}", "--clear-groups", "--no-new-privs"]
        caps = [f"--{kind}=-all{rights}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
        return ["setpriv", *user, *caps, "--", sys.executable, "-m", "pacs.cli.main", *words]

    @property
    def environment(self) -> dict[str, str]:
        own = {"PACS_DATA": str(self.data), "PACS_HTTP_SOCKET": str(self.runtime / "web.sock"), "HOME": "/tmp"}
        return {**os.environ, **own, "PACS_RECOVERY_POINT_S": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def pacs(self, *words: str, rights: str = "") -> str:
        done = subprocess.run(
            self.words(*words, rights=rights), env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def appliance(short_folder: Path) -> Iterator[Appliance]:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("it takes root to be several users")
    made = Appliance(short_folder / "rights")
    if subprocess.run(made.words("version"), env=made.environment, capture_output=True, check=False).returncode != 0:
        made.cluster.stop()
        pytest.skip("this Python is closed to other users")
    yield made
    made.cluster.stop()
    shutil.rmtree(made.data.parent)


def test_the_worker_asks_and_the_backup_reads(appliance: Appliance) -> None:
    appliance.pacs("database", "migrate")
    appliance.pacs("backup", "repository", "add", "usb", "--place", str(appliance.place), "--on-system-disk")
    worker = subprocess.Popen(appliance.words("worker", "run"), env=appliance.environment)
    try:
        wanted = appliance.runtime / "backup-wanted"
        wait_for(wanted.exists, "no backup was asked for")  # what pacs-backup-due.path waits for
        assert "full backup" in appliance.pacs("backup", "run", "--due", rights=",+dac_read_search")
        if wanted.exists():  # asked once more before the worker saw that it is done: then nothing is due
            assert "full backup" not in appliance.pacs("backup", "run", "--due", rights=",+dac_read_search")
        assert not wanted.exists()
        wait_for(lambda: json.loads(appliance.pacs("backup", "points", "--json"))["usb"], "no point was made")
        status = json.loads(appliance.pacs("backup", "status", "--json"))["usb"]
        assert status["error"] is None and status["gap_since"] is None
    finally:
        worker.terminate()
        worker.wait()
    assert {path.stat().st_uid for path in appliance.place.rglob("*")} == {SERVICE.pw_uid}
    assert (appliance.data / "config" / "pgbackrest").stat().st_mode & 0o077 == 0, "it holds the pass phrase"
