"""An operator's workstation, from which appliances are reached by SSH."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pacs.fleet.inventory import Appliance, appliances
from tests.sftp_server import SftpServer

REPOSITORY = Path(__file__).parents[1]


@dataclass
class Workstation:
    """An operator's: an inventory, known hosts, a key; appliances are instances behind one sshd."""

    folder: Path
    server: SftpServer
    hosts: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def inventory(self) -> Path:
        return self.folder / "hosts.yml"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def add(self, name: str, data: Path, **variables: object) -> None:
        """An appliance of the inventory: the instance in `data`."""
        self.hosts[name] = {
            "ansible_host": "127.0.0.1", "ansible_port": self.server.port, "ansible_user": getpass.getuser(),
            "ansible_ssh_private_key_file": str(self.server.root / "client"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.known_hosts}",
            "pacs_command": f"env PYTHONPATH={REPOSITORY} {sys.executable} -m pacs.cli.main --data {data}", **variables,
        }  # fmt: skip
        self.inventory.write_text(yaml.safe_dump({"appliance": {"hosts": self.hosts}}))

    def know(self, key: str = "host") -> None:
        """Make the sshd's key known, as an earlier visit did."""
        kind, text = (self.server.root / f"{key}.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.server.port} {kind} {text}\n")

    def fleet(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `pacs fleet` there."""
        return subprocess.run(
            [sys.executable, "-m", "pacs.cli.main", "fleet", words[0], "-i", str(self.inventory), *words[1:]],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SSH_AUTH_SOCK": ""},
        )  # fmt: skip

    def appliance(self, name: str) -> Appliance:
        return next(each for each in appliances(self.inventory) if each.name == name)
