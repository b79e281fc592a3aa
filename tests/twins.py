"""Two instances of `pacs dev`, each with an SSH server of its own on loopback, paired as two appliances are."""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fix_instance import Dev
from tests.sftp_server import SftpServer


@dataclass
class NodeServer(SftpServer):
    """The sshd of a node: it lets in whom the node's own file names, and leaves to that what each may."""

    authorized: Path = Path()

    def settings(self) -> str:
        known = f"{self.authorized} {self.authorized.with_name('pulled_keys')}"
        return f"AuthorizedKeysFile {known}\nAllowTcpForwarding yes\nAllowStreamLocalForwarding local\n"


@dataclass
class Node:
    """A machine: an instance, and the SSH server beside it."""

    dev: Dev
    sshd: NodeServer

    @classmethod
    def begin(cls, folder: Path, name: str, **environment: str) -> Node:
        """A machine that runs."""
        data, root = folder / name, folder / f"{name}-sshd"
        root.mkdir()
        dev = Dev(data, {"PACS_RECEIVERS": "1", **environment}).start(timeout_s=240)
        server = NodeServer(root, authorized=data / "standby" / "authorized_keys")
        server.start()
        return cls(dev, server)

    @property
    def address(self) -> list[str]:
        """How the other reaches it, as words of a command."""
        return ["--host", "127.0.0.1", "--port", str(self.sshd.port), "--user", getpass.getuser()]

    def status(self) -> dict[str, Any]:
        """`pacs standby status`."""
        found: dict[str, Any] = json.loads(self.pacs("standby", "status", "--json"))
        return found

    def pacs(self, *words: str) -> str:
        """What a command prints, which must succeed."""
        done = self.dev.pacs(*words, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + self.dev.log()[-4000:]
        return done.stdout

    def start_as_standby(self, timeout_s: float = 240) -> None:
        """Start `pacs dev` on a node that follows another."""
        before = len(self.dev.log())
        with (self.dev.data.parent / f"{self.dev.data.name}.log").open("a") as log:
            words = [sys.executable, "-m", "pacs.cli.main", "dev", "--data", str(self.dev.data)]
            self.dev.process = subprocess.Popen(
                [*words, "--dicom-port", "0", "--http-port", "0"], stdout=log, stderr=log,
                env={**os.environ, **self.dev.environment}, start_new_session=True,
            )  # fmt: skip
        self.wait_for_line("ready as a standby", before, timeout_s)

    def wait_for_line(self, words: str, before: int, timeout_s: float = 240) -> str:
        """Wait until `pacs dev` says something; return all that it said since."""
        ends = time.monotonic() + timeout_s
        while words not in (said := self.dev.log()[before:]):
            assert time.monotonic() < ends, said[-4000:]
            assert self.dev.process is not None
            assert self.dev.process.poll() is None, said[-4000:]
            time.sleep(0.05)
        return said

    def promoted(self, *words: str) -> dict[str, Any]:
        """Promote it; return what `pacs standby promote` says, when the services run."""
        before = len(self.dev.log())
        found: dict[str, Any] = json.loads(self.pacs("standby", "promote", "--yes", "--json", *words))
        said = self.wait_for_line("ready dicom=", before)
        ports = re.search(r"ready dicom=(\d+) http=(\d+)", said)
        assert ports is not None
        self.dev.dicom_port, self.dev.http_port = int(ports[1]), int(ports[2])
        return found

    def power_off(self) -> None:
        """SIGKILL to all of it, its SSH server too."""
        self.sshd.stop()
        self.dev.kill_all()

    def end(self) -> None:
        """End it in good order."""
        self.dev.stop()
        self.sshd.stop()


@dataclass
class Twins:
    """An archive and its standby."""

    archive: Node
    standby: Node

    @classmethod
    @contextmanager
    def paired(cls, folder: Path, **environment: str) -> Iterator[Twins]:
        """Two nodes, paired and following; ended after the block, whichever is what by then."""
        nodes: list[Node] = []
        try:
            nodes.append(archive := Node.begin(folder, "first", **environment))
            nodes.append(standby := Node.begin(folder, "second", **environment))
            offered = standby.pacs("standby", "offer", *standby.address, "--name", "second").strip()
            answer = archive.pacs("standby", "pair", offered, *archive.address, "--name", "first").strip()
            standby.dev.stop()
            standby.pacs("standby", "follow", answer, "--yes")
            standby.start_as_standby()
            yield cls(archive, standby)
        finally:
            for node in nodes:
                node.end()

    def is_level(self) -> bool:
        """Whether the standby has all."""
        return bool(self.archive.status()["is_level"])
