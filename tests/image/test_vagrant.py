"""`vagrant up`, `vagrant ssh`, `vagrant destroy` with libvirt and the box in dist/.

Where no libvirtd runs (a container), one is started in a network namespace of its own, so that the host's network
stays as it is; Vagrant then runs in there too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from packer.accelerator import Accelerator

_REPOSITORY = Path(__file__).parents[2]
_NAMESPACE = f"pacs-vagrant-{os.getpid()}"
_UP_LIMIT_S = 1200.0
_TOOLS = ("vagrant", "virsh", "libvirtd", "virtlogd", "dnsmasq", "echoscu")

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@dataclass(frozen=True)
class Workplace:
    """Where Vagrant runs: what goes before each command, and its environment."""

    prefix: tuple[str, ...]
    environment: dict[str, str]

    def run(self, *command: str, limit_s: float = 400) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository; its output is in the assertion when it fails."""
        answer = subprocess.run(
            [*self.prefix, *command],
            cwd=_REPOSITORY,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
        assert answer.returncode == 0, f"{' '.join(command)}\n{answer.stdout[-4000:]}\n{answer.stderr[-4000:]}"
        return answer


def _virsh(prefix: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    command = [*prefix, "virsh", "--quiet", "--connect", "qemu:///system", *words]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def prefix() -> Iterator[tuple[str, ...]]:
    """What to put before a command so that it finds a libvirtd."""
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; requirements/ensure-debian requirements/debian-vagrant.txt")
    if _virsh((), "uri").returncode == 0:
        yield ()
        return
    if os.geteuid() != 0:
        pytest.skip("no libvirtd runs here, and only root can start one in a network namespace")
    inside = ("ip", "netns", "exec", _NAMESPACE)
    subprocess.run(["ip", "netns", "add", _NAMESPACE], check=True)
    subprocess.run(["ip", "-n", _NAMESPACE, "link", "set", "lo", "up"], check=True)
    daemons = [subprocess.Popen([*inside, name]) for name in ("virtlogd", "libvirtd")]
    try:
        deadline = time.monotonic() + 30
        while _virsh(inside, "uri").returncode != 0:
            assert time.monotonic() < deadline, "libvirtd does not answer"
            time.sleep(0.5)
        yield inside
        _virsh(inside, "net-destroy", "vagrant-libvirt")
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        subprocess.run(["ip", "netns", "delete", _NAMESPACE], check=True)


@pytest.fixture
def workplace(prefix: tuple[str, ...], accelerator: Accelerator, tmp_path: Path) -> Iterator[Workplace]:
    """Vagrant with a home and a state of its own; machine, box and the pool's copy of the box are gone afterwards."""
    environment = {
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "state"),
        "LIBVIRT_DRIVER": "kvm" if accelerator.is_kvm else "qemu",
        "PACS_SAMPLES": "2",
        "PACS_SAMPLE_IMAGES": "3",
    }
    before = set(_virsh(prefix, "vol-list", "default").stdout.split())
    place = Workplace(prefix, environment)
    try:
        yield place
    finally:
        place.run("vagrant", "destroy", "--force")
        for word in set(_virsh(prefix, "vol-list", "default").stdout.split()) - before:
            if word.endswith("_box.img") and "/" not in word:
                _virsh(prefix, "vol-delete", "--pool", "default", word)


def test_up_ssh_and_destroy(workplace: Workplace) -> None:
    workplace.run("vagrant", "up", limit_s=_UP_LIMIT_S)
    workplace.run("vagrant", "ssh", "-c", "systemctl is-system-running --wait", limit_s=600)
    mounts = workplace.run("vagrant", "ssh", "-c", "findmnt --noheadings --list --output TARGET --types ext4").stdout
    assert {f"/srv/pacs/{name}" for name in ("state", "tier1", "tier2")} <= set(mounts.split())
    # The tunnel ends in the appliance: to it, every peer has the appliance's own address.
    peer = workplace.run("vagrant", "ssh", "-c", "hostname --all-ip-addresses").stdout.split()[0]
    device = f"sudo pacs device add echo --ae-title ECHOSCU --host {peer} --port 11113"
    workplace.run("vagrant", "ssh", "-c", device)
    workplace.run("echoscu", "-aet", "ECHOSCU", "-aec", "PACS", "127.0.0.1", "11112")
    workplace.run("vagrant", "provision", "--provision-with", "samples", limit_s=900)
    listed = workplace.run("vagrant", "ssh", "-c", "sudo pacs study list --json").stdout
    assert listed.count('"study_instance_uid"') == 2
    workplace.run("vagrant", "provision", "--provision-with", "role", limit_s=900)
    workplace.run("vagrant", "destroy", "--force")
    assert "main_default" not in _virsh(workplace.prefix, "list", "--all", "--name").stdout
