"""NUT itself, configured from the settings, with its dummy driver: no power, a low charge, and what would shut down.

No systemd here, and so no boot: Debian's packages in a root file system of their own and a network of their own. What
the machine does when it is told to shut down is in tests/image/test_ups.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pacs.machine import ups
from pacs.machine.kept_settings import Kept
from pacs.machine.machine_settings import Effect
from tests.roles.rootfs import REPOSITORY, base

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

_SETTINGS = Kept({"ups": "local", "ups_driver": "dummy-ups /run/test.dev", "ups_shutdown_charge": "40"})
_WATCH = """
from pacs.machine import ups
print(ups.watch("ups@localhost", 40))
"""


class Room:
    """A root file system with NUT, a network that nobody else has; what is started in it ends with the test."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self._stack = stack
        self._inside = ["chroot", str(root), "env", "-i", "PATH=/usr/sbin:/usr/bin", "LC_ALL=C"]
        self._network = self._started("unshare", "--net", "sleep", "infinity")
        self.until(lambda: Path(f"/proc/{self._network.pid}/comm").read_text() == "sleep\n")
        self.run("ip", "link", "set", "lo", "up")

    def _started(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        return process

    def _words(self, words: tuple[str, ...]) -> list[str]:
        return ["nsenter", "-t", str(self._network.pid), "-n", *self._inside, *words]

    def run(self, *words: str, check: bool = True) -> str:
        answer = subprocess.run(
            self._words(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert not check or answer.returncode == 0, answer.stdout
        return answer.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self._started(*self._words(words))

    def says(self, status: str, charge: int) -> None:
        new = self.root / "run/new.dev"
        new.write_text(f"ups.status: {status}\nbattery.charge: {charge}\n")
        new.rename(self.root / "run/test.dev")

    def until(self, is_so: Callable[[], bool], limit_s: float = 90) -> None:
        deadline = time.monotonic() + limit_s
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", base(), root], check=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        for kind, place in (("proc", "proc"), ("tmpfs", "run")):
            subprocess.run(["mount", "-t", kind, kind, root / place], check=True)
            stack.callback(subprocess.run, ["umount", root / place], check=True)
        subprocess.run(["cp", "-a", f"{REPOSITORY}/roles/ups/tree/.", root], check=True)
        (root / "usr/local/libexec/pacs-ups-event").chmod(0o755)
        (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (root / "usr/sbin/policy-rc.d").chmod(0o755)
        made = Room(root, stack)
        options = ["--yes", "--no-download", "--no-install-recommends"]
        made.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options, "nut-client", "nut-server")
        shutil.copytree(REPOSITORY / "pacs", root / "opt/pacs", ignore=shutil.ignore_patterns("__pycache__"))
        yield made


def test_no_power_a_low_charge_and_a_shutdown(room: Room) -> None:
    nut = room.root / "etc/nut"
    for name, text in ups.files(_SETTINGS.of_effect(Effect.MACHINE), "", ups.on_usb).items():
        assert text is not None
        (nut / name).write_text(text.replace("/usr/bin/systemctl poweroff", "/usr/bin/touch /run/shut-down"))
        room.run("chgrp", "nut", f"/etc/nut/{name}")
        (nut / name).chmod(0o640)
    assert room.run("/usr/libexec/nut-driver-enumerator.sh", "--get-device-for-service", "ups").strip() == "ups"
    room.run("systemd-tmpfiles", "--create", "nut-client.conf", check=False)
    room.says("OL", 100)
    room.run("upsdrvctl", "start", "ups")
    room.start("upsd", "-F")
    room.until(lambda: room.run("upsc", "ups@localhost", "ups.status", check=False).splitlines()[-1:] == ["OL"])
    assert [line.split()[3] for line in room.run("ss", "-Hltn").splitlines()] == ["127.0.0.1:3493"]
    room.start("upsmon", "-F")
    room.until((room.root / "run/nut/upsmon.pid").exists)

    room.says("OB DISCHRG", 80)
    event = room.root / "run/nut/pacs-event"
    room.until(lambda: event.exists() and event.read_text() == "ONBATT\n")
    watching = room.start("env", "PYTHONPATH=/opt", "python3", "-c", _WATCH)
    assert not (room.root / "run/shut-down").exists()
    room.says("OB DISCHRG", 40)
    room.until((room.root / "run/shut-down").exists)
    assert watching.communicate(timeout=30)[0].strip().endswith("True")
    assert (room.root / "run/killpower").exists(), "the UPS is to cut the load when all is unmounted"
    room.run("upsmon", "-K")
    room.run("upsdrvctl", "stop")
