"""A network of its own that several containers are plugged into: appliances, modalities, an operator's workstation.

A namespace with a bridge, which ends with the tests. Who is killed in it falls silent, as a machine without power does:
no connection is reset.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.roles.container import Container
from tests.roles.rootfs import REPOSITORY

#: The network's addresses, and that of whoever is not an appliance. Private ones: an administrator's are.
ADDRESSES = "10.77.0.{}"
OTHERS = ADDRESSES.format(1)
_INTERFACE = "lan0"
_NETWORK = """[Match]
Name={interface}

[Network]
Address={address}/24
LinkLocalAddressing=no
IPv6AcceptRA=no
ConfigureWithoutCarrier=yes
"""


class Lan:
    """The network. `plug_in` an appliance after each of its boots."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
        self.pid, ours = self._process.pid, Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self.pid}/ns/net").readlink() == ours:
            time.sleep(0.01)
        for words in ("link set lo up", "link add bridge0 type bridge", f"addr add {OTHERS}/24 dev bridge0"):
            self.run("ip", *words.split())
        self.run("ip", "link", "set", "bridge0", "up")

    @classmethod
    @contextlib.contextmanager
    def made(cls) -> Iterator[Lan]:
        """A network, which ends with the block."""
        lan = cls()
        try:
            yield lan
        finally:
            lan._process.kill()
            lan._process.wait()

    def inside(self, *command: str | Path) -> list[str]:
        """The words of a command in this network."""
        return ["nsenter", "-t", str(self.pid), "-n", "--", *map(str, command)]

    def run(self, *command: str | Path, timeout_s: float = 300) -> str:
        """What a command in this network prints; it must succeed."""
        done = subprocess.run(
            self.inside(*command), capture_output=True, text=True, check=False, timeout=timeout_s, cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def plug_in(self, container: Container, address: str) -> None:
        """Plug a running container in. Its own systemd-networkd gives it the address."""
        file = container.root / "etc/systemd/network/05-lan.network"
        file.write_text(_NETWORK.format(interface=_INTERFACE, address=address))
        container.run("networkctl reload")
        name = _socket(address)
        end = ["peer", "name", _INTERFACE, "netns", str(container.init)]
        self.run("ip", "link", "add", name, "type", "veth", *end)
        self.run("ip", "link", "set", name, "master", "bridge0", "up")
        container.run(f"until ip -4 addr show {_INTERFACE} | grep -q {address}/; do sleep 0.1; done")

    def unplug(self, address: str) -> None:
        """Pull the cable of whoever has an address: nothing more is heard of it, not even that it ends."""
        self.run("ip", "link", "delete", _socket(address))


def _socket(address: str) -> str:
    return f"to-{address.rpartition('.')[2]}"
