"""Remote access through a real tunnel: two namespaces, WireGuard in user space, the appliance's wall in between."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs.machine import remote_access
from pacs.machine.commands import output
from tests.walls import Namespace, join

pytestmark = pytest.mark.long

HERE, THERE = "192.0.2.1", "192.0.2.2"
OWN, THEIRS = "10.98.76.2", "10.98.76.1"
_PORT = 51820
_UP = """
from pacs.machine import remote_access
remote = remote_access.Remote({peer!r}, "{there}:{port}", "{own}/24", ("{theirs}/32",))
remote_access.up(remote, {key!r})
remote_access.up(remote, {key!r})
"""


class Ends:
    """The appliance and a far side that was made on it, with a cable between them; the tunnels are not set up yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "site").mkdir()
        self.appliance, self.far = Namespace.made(), Namespace.made()
        join(self.appliance, HERE, self.far, THERE, "cable")
        self.own, self.theirs = output("wg", "genkey"), output("wg", "genkey")
        self._processes = [self._tunnel(self.appliance, remote_access.INTERFACE), self._tunnel(self.far, "pacs-far")]

    def _tunnel(self, end: Namespace, name: str) -> subprocess.Popen[bytes]:
        words = ["nsenter", "-t", str(end.holder.pid), "-n", "--", "wireguard-go", "-f", name]
        process = subprocess.Popen(words, env={**os.environ, "LOG_LEVEL": "error"})
        deadline = time.monotonic() + 60
        while not Path(f"/var/run/wireguard/{name}.sock").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return process

    def set_far(self) -> None:
        """As whoever reads the configuration that was shown once sets their side up."""
        public = remote_access.public_key(self.own)
        text = remote_access.for_far_side(self.theirs, _PORT, public, f"{OWN}/24", f"{THEIRS}/24")
        known = "\n".join(line for line in text.splitlines() if not line.startswith("Address"))
        self.far.run("wg", "setconf", "pacs-far", "/dev/stdin", given=known)
        self.far.run("ip", "address", "add", f"{THEIRS}/24", "dev", "pacs-far")
        self.far.run("ip", "link", "set", "pacs-far", "up")

    def set_appliance(self) -> None:
        peer = remote_access.public_key(self.theirs)
        code = _UP.format(peer=peer, there=THERE, port=_PORT, own=OWN, theirs=THEIRS, key=self.own)
        self.appliance.run(sys.executable, "-c", code)

    def wall(self, dials: bool, ports: list[int]) -> None:
        calls = [{"what": "remote access", "host": THERE, "port": _PORT, "protocol": "udp"}] if dials else []
        site: dict[str, Any] = {"clinical": ["own"], "administrators": ["own"], "own": [f"{HERE}/24"]}
        wanted = {"site": site, "devices": [], "calls": calls, "addresses": {},
                  "tunnel": {"interface": remote_access.INTERFACE, "ports": ports}}  # fmt: skip
        self.appliance.python("apply", str(self.folder), given=json.dumps(wanted))

    def answers(self, tries: int) -> bool:
        return any(self.far.python("scan", OWN, "3", "22")["open"] for _try in range(tries))

    def end(self) -> None:
        for each in self._processes:
            each.terminate()
            each.wait()
        for end in (self.appliance, self.far):
            end.end()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("wireguard-go", "wg", "nft"))):
        pytest.skip("needs root, wireguard-go, wireguard-tools and nftables")
    made = Ends(tmp_path)
    try:
        yield made
    finally:
        made.end()


def test_the_appliance_dials_and_takes_in_what_the_setting_names(ends: Ends) -> None:
    ends.set_far()
    ends.appliance.listen([22, 104, 443, 5432])
    ends.wall(dials=False, ports=[22, 443])
    ends.set_appliance()
    assert not ends.answers(1), "the wall lets nobody be dialled who is not named"
    ends.wall(dials=True, ports=[22, 443])
    assert ends.answers(20)
    found = ends.far.python("scan", OWN, "3", "22", "104", "443", "5432")
    assert set(found["open"]) == {22, 443}
    assert found["closed"] == []
    shown = ends.appliance.run("wg", "show", remote_access.INTERFACE, "latest-handshakes").split()
    assert int(shown[-1]) > 0
    addresses = json.loads(ends.appliance.run("ip", "-json", "address", "show", "dev", remote_access.INTERFACE))
    own = [(one["local"], one["prefixlen"]) for one in addresses[0]["addr_info"] if one["family"] == "inet"]
    assert own == [(OWN, 32)], "once, also after it was set up twice; and no subnet of the machine's"


def test_a_far_side_of_another_key_is_not_answered(ends: Ends) -> None:
    ends.wall(dials=True, ports=[22])
    ends.appliance.listen([22])
    ends.theirs, real = output("wg", "genkey"), ends.theirs
    ends.set_far()
    ends.theirs = real
    ends.set_appliance()
    assert not ends.answers(2)
