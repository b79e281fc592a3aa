"""OpenSSH's server on loopback: for repositories over SFTP, and for appliances that are reached by SSH."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SSHD = Path("/usr/sbin/sshd")


@dataclass
class SftpServer:
    """An sshd that knows one key, and gives nothing but SFTP."""

    root: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def login(self) -> bytes:
        """What logs in, as a repository's file of credentials has it."""
        return f'private_key = """\n{(self.root / "client").read_text()}"""\n'.encode()

    def location(self, folder: Path) -> str:
        return f"sftp://{getpass.getuser()}@127.0.0.1:{self.port}{folder}"

    def settings(self) -> str:
        """Who may come in, and to what."""
        return f"AuthorizedKeysFile {self.root}/authorized\nForceCommand internal-sftp\n"

    def start(self) -> SftpServer:
        for name in ("host", "client"):
            if not (self.root / name).exists():
                words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.root / name)]
                subprocess.run(words, check=True)
        (self.root / "authorized").write_text((self.root / "client.pub").read_text())
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        config = self.root / "config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.root}/host\nPidFile none\nStrictModes no\n"
            "UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
            + self.settings()
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        with (self.root / "log").open("a") as log:
            self.process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=log)
        ends = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > ends:
                    raise AssertionError((self.root / "log").read_text()) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it, and the sessions in it."""
        if self.process is not None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            self.process.kill()
            self.process.wait()
            self.process = None
            for pid in map(int, children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def sftp_server(tmp_path: Path) -> Iterator[SftpServer]:
    """A server; skips where there is none."""
    if not SSHD.exists():
        pytest.skip("Debian's openssh-server is not installed: requirements/debian-test.txt")
    (tmp_path / "sshd").mkdir()
    server = SftpServer(tmp_path / "sshd").start()
    yield server
    server.stop()


class SshServer(SftpServer):
    """One that gives commands too, as an appliance does."""

    def settings(self) -> str:
        return f"AuthorizedKeysFile {self.root}/authorized\n"


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[SftpServer]:
    """A server that gives commands; skips where there is none."""
    if not SSHD.exists():
        pytest.skip("Debian's openssh-server is not installed: requirements/debian-test.txt")
    (tmp_path / "ssh").mkdir()
    server = SshServer(tmp_path / "ssh")
    server.start()
    yield server
    server.stop()
