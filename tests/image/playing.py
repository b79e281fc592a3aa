"""Ansible, as an operator runs it from a workstation, on booted appliances."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.image.machine import Machine

_REPOSITORY = Path(__file__).parents[2]
_PROGRAM = _REPOSITORY / ".venv/bin/ansible-playbook"


@dataclass
class Play:
    """A playbook that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, limit_s: float) -> tuple[int, str]:
        """Wait for its end; its exit code and what it printed."""
        code = self.process.wait(limit_s)
        return code, self.log.read_text("utf-8", "replace")


def inventory(machine: Machine, folder: Path) -> Path:
    """Two appliances: `first` is the machine; nobody answers for `second`, whose turn comes after it."""
    folder.mkdir()
    hosts = {
        "first": {"ansible_host": "appliance", "ansible_ssh_common_args": f"-F {machine.ssh_config}"},
        "second": {"ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_user": "nobody"},
    }
    path = folder / "hosts.yml"
    path.write_text(json.dumps({"appliance": {"hosts": hosts}}), "utf-8")  # JSON is YAML too
    return path


@contextmanager
def playing(playbook: str, hosts: Path, variables: dict[str, object], *words: str) -> Iterator[Play]:
    """Run a playbook of this repository; it is ended at the end."""
    log = hosts.with_suffix(".log")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(_REPOSITORY / "ansible.cfg"),
        "ANSIBLE_HOME": str(hosts.parent),
        "ANSIBLE_LOCAL_TEMP": str(hosts.parent / "local"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(hosts.parent / "cp"),
    }
    command = [_PROGRAM, "-i", hosts, _REPOSITORY / "playbooks" / playbook, "-e", json.dumps(variables), *words]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=_REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            yield Play(process, log)
        finally:
            process.kill()
            process.wait()
