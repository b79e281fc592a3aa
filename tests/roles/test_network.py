"""The network's settings before Debian 13's own systemd-networkd, in namespaces: it takes the files, and goes back.

Only what is systemd's own first process is a stand-in: the timer (systemd-run). No container is booted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.roles.rootfs import REPOSITORY, base

pytestmark = pytest.mark.long

_PREPARE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$WORK"; mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
cd "$WORK/root"
mount -t proc proc proc; mount -t sysfs -o ro sysfs sys; mount -t tmpfs tmpfs run; mount --rbind /dev dev
mkdir -p run/dbus run/systemd/network run/systemd/netif/links run/systemd/netif/leases repository state
echo systemd-nspawn >run/systemd/container
echo 0123456789abcdef0123456789abcdef >etc/machine-id
mount --bind "$REPOSITORY" repository
chroot . sh -c 'rm -f /etc/systemd/network/*; chown -R systemd-network: /run/systemd/netif'
cp repository/roles/base/tree/etc/systemd/network/10-ethernet.network etc/systemd/network/
cat >usr/local/bin/systemd-run <<'END'
#!/bin/sh
while [ "${1#-}" != "$1" ]; do case $1 in --on-active=*) wait=${1#--on-active=};; esac; shift; done
setsid sh -c 'sleep "$1"; shift; shift 3; exec python3 /state/go_back.py' sh "${wait%s}" "$@" >/state/timer.log 2>&1 &
END
printf '#!/bin/sh\\n' >usr/local/bin/systemctl
chmod 755 usr/local/bin/systemd-run usr/local/bin/systemctl
cat >state/network.py <<'END'
import sys
sys.path.insert(0, "/repository")
from dataclasses import replace
from pathlib import Path
from pacs.machine import kept_settings
from pacs.machine.network_change import Network
state = Path("/state")
network = Network(state)
END
(cat state/network.py; echo 'print(network.go_back())') >state/go_back.py
ip link set lo up
ip link add ens3 address 52:54:00:00:00:01 type veth peer name outside
echo prepared >"$WORK/root/state/prepared"
exec chroot . sh -c 'dbus-daemon --system --fork --nopidfile
  until [ -e /sys/class/net/ens3 ] && [ ! -e /sys/class/net/outside ]; do sleep 0.1; done
  SYSTEMD_LOG_TARGET=console exec /usr/lib/systemd/systemd-networkd >/state/networkd.log 2>&1'
"""


class Inside:
    """systemd-networkd in a root and a network of its own; the other end of its cable is in a second network."""

    def __init__(self, folder: Path) -> None:
        work = folder / "work"
        work.mkdir()
        environment = {**os.environ, "WORK": str(work), "BASE": str(base()), "REPOSITORY": str(REPOSITORY)}
        self._outer = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._inner = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _PREPARE], env=environment
        )
        try:
            self.pid = self._wait_for_child()
            self.root = Path(f"/proc/{self.pid}/root")
            _until(lambda: (self.root / "state/prepared").exists())
            self._move_cable()
            _until(lambda: self.run("networkctl", "--no-pager", "list").returncode == 0)
        except BaseException:
            self.end()
            raise

    def _wait_for_child(self) -> int:
        children = Path(f"/proc/{self._inner.pid}/task/{self._inner.pid}/children")
        _until(lambda: bool(children.read_text().split()))
        return int(children.read_text().split()[0])

    def _move_cable(self) -> None:
        words = ["nsenter", "-t", str(self.pid), "--net", "ip", "link", "set", "outside", "netns", str(self._outer.pid)]
        subprocess.run(words, check=True)
        for text in ("link set outside up", "address add 192.0.2.1/24 dev outside", "link set lo up"):
            self.outside("ip", *text.split())

    def outside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program on the other end of the cable."""
        command = ["nsenter", "-t", str(self._outer.pid), "--net", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside."""
        entered = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--pid", "--root", "--wd"]
        command = [*entered, "env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def change(self, values: dict[str, str], then: str = "") -> str:
        """Begin a change of the network to these values, to be confirmed within 15 s; what `then` printed."""
        text = (
            "from network import *\nkept = kept_settings.load(state)\n"
            f"network.begin(replace(kept, values={values!r}), 15)\n{then}\n"
        )
        done = self.run("env", "PYTHONPATH=/state", "python3", "-c", text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def addresses(self) -> str:
        return self.run("ip", "-brief", "address", "show", "dev", "ens3").stdout

    def answers(self, address: str) -> bool:
        """Whether an address is there, seen from the other end of the cable: it answers for its hardware address."""
        self.outside("ip", "neighbour", "flush", "to", address)
        self.outside("python3", "-c", f"import socket; socket.socket(2, 2).sendto(b'', ('{address}', 9))")
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            if "52:54:00:00:00:01" in self.outside("ip", "neighbour", "show", "to", address).stdout:
                return True
            time.sleep(0.05)
        return False

    def end(self) -> None:
        for process in (self._inner, self._outer):
            process.kill()
            process.wait()


def _until(true: object, limit_s: float = 60) -> None:
    assert callable(true)
    ends = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        pytest.skip("needs root and mmdebstrap")
    made = Inside(tmp_path_factory.mktemp("network"))
    try:
        yield made
    finally:
        made.end()


STATIC = {"network": "static", "address": "192.0.2.10/24", "gateway": "192.0.2.1", "dns": "192.0.2.53"}


def test_a_new_address_answers_and_stays_when_it_is_confirmed_else_the_old_one_comes_back(inside: Inside) -> None:
    inside.change(STATIC)
    _until(lambda: inside.answers("192.0.2.10"))
    inside.run("env", "PYTHONPATH=/state", "python3", "-c", "from network import *; network.confirm()")
    # Nobody can reach the next one from where they are.
    inside.change({**STATIC, "address": "198.51.100.10/24", "gateway": "198.51.100.1"})
    _until(lambda: "198.51.100.10/24" in inside.addresses())
    assert not inside.answers("192.0.2.10")
    _until(lambda: inside.answers("192.0.2.10"))
    assert "198.51.100.10" not in inside.addresses()
    assert "True" in (inside.root / "state/timer.log").read_text()
    routes = inside.run("ip", "route").stdout
    assert "default via 192.0.2.1 dev ens3" in routes


def test_every_kind_of_file_is_understood(inside: Inside) -> None:
    """networkd names a key that it does not know, and goes on: so its log is read. This kernel may have no VLAN."""
    for values in (
        {**STATIC, "ipv6": "static", "ipv6_address": "2001:db8::10/64", "ipv6_gateway": "fe80::1"},
        {**STATIC, "ipv6": "off", "routes": "10.9.0.0/16 via 192.0.2.254", "search_domains": "hospital.example"},
        {**STATIC, "vlan": "120", "second_address": "198.51.100.5/24", "second_card": "52:54:00:00:00:02"},
        {"dns": "192.0.2.53", "second_address": "dhcp", "second_card": "52:54:00:00:00:02"},
    ):
        inside.change(values, then="network.confirm()")
        _until(lambda: inside.run("networkctl", "--no-pager", "status", "ens3").returncode == 0)
    log = (inside.root / "state/networkd.log").read_text()
    assert "07-pacs-first.network" in log
    words = ("Unknown", "ignoring", "Invalid", "Failed to parse")
    assert [line for line in log.splitlines() if "-pacs-" in line and any(word in line for word in words)] == []
