"""A Debian that boots in a container: systemd as PID 1, a network namespace of its own with nothing but loopback.

Ansible and test clients run on the host, but inside that network namespace: 127.0.0.1 is the container's. So nothing
of the host's network is seen or changed, nftables rules included.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.roles.rootfs import REPOSITORY


class Container:
    """One container on a private copy of a root file system; `boot` and `pull_the_plug` as often as wanted."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.init = 0
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(self.root)], check=True)
        self._let_ansible_in()

    def _let_ansible_in(self) -> None:
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (self.root / "etc/machine-id").write_text("")
        subprocess.run(["chroot", self.root, "useradd", "-m", "-p", "*", "-s", "/bin/sh", "builder"], check=True)
        ssh = self.root / "home/builder/.ssh"
        ssh.mkdir(mode=0o700)
        shutil.copy(key.with_suffix(".pub"), ssh / "authorized_keys")
        subprocess.run(["chroot", self.root, "chown", "-R", "builder:", "/home/builder"], check=True)
        (self.root / "etc/sudoers.d/90-builder").write_text("builder ALL=(ALL) NOPASSWD: ALL\n")

    def boot(self, timeout_s: float = 60) -> None:
        """Start it and wait until every job of the boot is done, failed ones included."""
        log = (self.folder / "boot.log").open("ab")
        self._nspawn = subprocess.Popen(
            [
                "systemd-nspawn",
                "--quiet",
                "-D",
                self.root,
                "-b",
                "--register=no",
                "--keep-unit",
                "--private-network",
                "--link-journal=no",
                "--resolv-conf=off",
                "--timezone=off",
                f"--machine=pacs-{os.getpid()}-{self.folder.name}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + timeout_s
        self.init = 0
        while time.monotonic() < deadline:
            self.init = self.init or _init_below(self._nspawn.pid)
            if self.init and self.state() in ("running", "degraded"):
                return
            time.sleep(0.3)
        raise TimeoutError(f"The container did not finish booting: {self.state()}\n{self.run('systemctl list-jobs')}")

    @property
    def pid(self) -> int:
        """Its PID 1, as the host numbers it."""
        return self.init

    def state(self) -> str:
        """What systemd says of itself: starting, running, degraded …"""
        return self._enter("systemctl is-system-running", check=False).stdout.strip()

    def pull_the_plug(self) -> None:
        """End it without a warning. The host's page cache stays, so nothing that was written is lost.

        Not in order: on a host with cgroups of version 1, a systemd in a container never learns that the units of a
        user have ended, and waits for them.
        """
        if self._nspawn is not None:
            os.kill(self.init, signal.SIGKILL)
            self._nspawn.wait(60)
            self._nspawn = None

    def run(self, command: str) -> str:
        """Standard output of a shell command inside; raise if it fails."""
        answer = self._enter(command, check=False)
        if answer.returncode:
            raise AssertionError(f"{command}: {answer.returncode}\n{answer.stdout}{answer.stderr}")
        return answer.stdout

    def succeeds(self, command: str) -> bool:
        """Whether a shell command inside ends with 0."""
        return self._enter(command, check=False).returncode == 0

    def _enter(self, command: str, check: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "nsenter",
                "-t",
                str(self.init),
                "-a",
                "--",
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/usr/local/bin",
                "LC_ALL=C",
                "sh",
                "-c",
                command,
            ],
            capture_output=True,
            text=True,
            check=check,
            timeout=300,
        )

    def from_outside(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the host in the container's network: how a client would see it."""
        return subprocess.run(
            ["nsenter", "-t", str(self.init), "-n", "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def play(self, playbook: str, variables: Mapping[str, object], *arguments: str, user: str = "builder") -> str:
        """Run a playbook against it; return what ansible-playbook printed, raise if it failed."""
        inventory = self.folder / "inventory.yml"
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes"
        inventory.write_text(
            "appliance:\n  hosts:\n    container:\n"
            f"      ansible_host: 127.0.0.1\n      ansible_user: {user}\n"
            f"      ansible_ssh_private_key_file: {self.folder / 'key'}\n"
            f"      ansible_ssh_common_args: {options}\n"
        )
        answer = subprocess.run(
            [
                "nsenter",
                "-t",
                str(self.init),
                "-n",
                "--",
                REPOSITORY / ".venv/bin/ansible-playbook",
                "-i",
                inventory,
                REPOSITORY / "playbooks" / playbook,
                "--extra-vars",
                json.dumps(dict(variables)),
                *arguments,
            ],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
            },
        )
        if answer.returncode:
            raise AssertionError(answer.stdout + answer.stderr)
        return answer.stdout

    def remove(self) -> None:
        """End it and delete its files."""
        self.pull_the_plug()
        shutil.rmtree(self.root, ignore_errors=True)


def _init_below(pid: int) -> int:
    """The container's PID 1 as the host numbers it, or 0 while there is none."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in map(int, children.read_text().split()):
                status = Path(f"/proc/{child}/status").read_text()
                inside = next((line for line in status.splitlines() if line.startswith("NSpid:")), "").split()
                if len(inside) > 2 and inside[-1] == "1" and Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return child
                if found := _init_below(child):
                    return found
        except OSError:
            continue
    return 0
