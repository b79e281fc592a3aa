"""The database's backup on an SFTP server, by the pgBackRest that the appliance has: it knows SFTP since 2.46."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.backup.cluster_verify import verify
from pacs.backup.running import run_backup
from tests.fix_cluster import Site
from tests.remote.guests_pgbackrest import put_in
from tests.sftp_server import SSHD, SftpServer

pytestmark = pytest.mark.long

#: Debian's own server has one key of each of these.
_KEYS = ("ed25519", "ecdsa", "rsa")


@pytest.fixture(autouse=True)
def guests_pgbackrest(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Debian 13's pgBackRest with its libraries, in a folder that comes first on the path."""
    return put_in(short_folder / "pgbackrest", monkeypatch)


class OrdinaryServer(SftpServer):
    """A server with a host key of each kind, as one is that nobody has changed: clients prefer different ones."""

    def settings(self) -> str:
        for kind in _KEYS:
            if not (self.root / kind).exists():
                words = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(self.root / kind)]
                subprocess.run(words, check=True)
        return super().settings() + "".join(f"HostKey {self.root}/{kind}\n" for kind in _KEYS)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SftpServer]:
    if not SSHD.exists():
        pytest.skip("Debian's openssh-server is not installed: requirements/debian-test.txt")
    (tmp_path / "sshd").mkdir()
    running = OrdinaryServer(tmp_path / "sshd")
    running.start()
    yield running
    running.stop()


def test_a_database_goes_to_an_sftp_server_and_comes_back(
    site: Site, server: SftpServer, tmp_path: Path, guests_pgbackrest: Path
) -> None:
    said = subprocess.run([guests_pgbackrest, "version"], capture_output=True, text=True, check=True).stdout
    assert tuple(map(int, said.split()[1].split(".")[:2])) >= (2, 46)
    folder = tmp_path / "on-server"
    vault = site.add("vault", server.location(folder), options={"timeout_s": 10}, credentials=server.login)
    site.note("a: before the backup")
    assert run_backup(site.data, vault).backup.kind == "full"
    site.note("b: after the backup")
    site.end_segment()
    assert site.ship("vault")
    assert site.log("vault").read().error is None
    assert site.restore("vault").notes() == ["a: before the backup", "b: after the backup"]
    site.note("c: the next day")
    assert run_backup(site.data, vault).backup.kind == "incr"
    assert verify(site.data, "vault") == []
    # It is away: the log waits for it; it is back: all of it is there.
    server.stop()
    site.note("d: while it was away")
    waiting = site.end_segment()
    site.ship("vault")
    assert site.log("vault").read().error and waiting in site.spool.names()
    server.start()
    site.wait(lambda: site.ship("vault"))
    notes = site.restore("vault").notes()
    assert notes == ["a: before the backup", "b: after the backup", "c: the next day", "d: while it was away"]
    # Another server in its place is told nothing.
    server.stop()
    for kind in ("host", *_KEYS):
        (server.root / kind).unlink()
        (server.root / f"{kind}.pub").unlink()
    server.start()
    waiting = site.end_segment()
    site.ship("vault")
    assert site.log("vault").read().error and waiting in site.spool.names()
