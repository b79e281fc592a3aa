"""Two machines and a neighbour on a bridge: the one that is the archive has the shared address, by a person's word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pacs.backup.standby_files import StandbyFiles
from pacs.storage.lineage import LineageFiles
from tests.faults.process import wait_for

SHARED, NEIGHBOUR = "10.78.0.30", "10.78.0.1"
_PROGRAM = """
import sys, threading
from pathlib import Path
from pacs.machine import service_address
service_address._TURN_S = 0.2
data = Path(sys.argv[1])
service_address.keep(data, data / "shared", threading.Event(), lambda state: print(state, flush=True))
"""


#: What makes a machine ask for another's card.
_CALL = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
    caller.sendto(b"", (sys.argv[1], 9))
"""


class Machine:
    """A network namespace with a card on the bridge, and what runs there."""

    def __init__(self, folder: Path, name: str, address: str) -> None:
        self.data = folder / name
        self.data.mkdir()
        (self.data / "shared").write_text(f"{SHARED}/24\n")
        self._sleep = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
        ours = Path("/proc/self/ns/net").readlink()
        wait_for(lambda: Path(f"/proc/{self._sleep.pid}/ns/net").readlink() != ours, "there is no namespace")
        self.name, self.address = name, address
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._sleep.pid

    def run(self, *words: str, check: bool = True) -> str:
        inside = ["nsenter", "-t", str(self.pid), "-n", "--", *words]
        return subprocess.run(inside, capture_output=True, text=True, check=check).stdout

    def start(self) -> None:
        words = ["nsenter", "-t", str(self.pid), "-n", "--", sys.executable, "-c", _PROGRAM, str(self.data)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)

    def end(self) -> None:
        for process in (self.process, self._sleep):
            if process is not None:
                process.kill()
                process.wait()

    def has_it(self) -> bool:
        shown = json.loads(self.run("ip", "-json", "-4", "address", "show"))
        return any(each["local"] == SHARED for card in shown for each in card["addr_info"])

    def mac(self) -> str:
        return str(json.loads(self.run("ip", "-json", "link", "show", "card"))[0]["address"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Machine, Machine, Machine]]:
    """The first, the second, and a neighbour, who has the bridge."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces are root's")
    with ExitStack() as ended:
        neighbour, *machines = (
            Machine(tmp_path, name, address)
            for name, address in (("neighbour", NEIGHBOUR), ("first", "10.78.0.11"), ("second", "10.78.0.12"))
        )
        for each in (neighbour, *machines):
            ended.callback(each.end)
        neighbour.run("ip", "link", "add", "card", "type", "bridge")
        for each in machines:
            neighbour.run(
                "ip", "link", "add", each.name, "type", "veth", "peer", "name", "card", "netns", str(each.pid)
            )
            neighbour.run("ip", "link", "set", each.name, "master", "card", "up")
        for each in (neighbour, *machines):
            each.run("ip", "address", "add", f"{each.address}/24", "dev", "card")
            each.run("ip", "link", "set", "card", "up")
        yield machines[0], machines[1], neighbour


def _at(neighbour: Machine) -> str:
    """Whose card the neighbour takes the address for."""
    found = json.loads(neighbour.run("ip", "-json", "neighbour", "show", SHARED) or "[]")
    return str(found[0].get("lladdr", "")) if found else ""


def test_it_goes_to_whom_a_person_makes_the_archive_and_never_to_two(site: tuple[Machine, Machine, Machine]) -> None:
    first, second, neighbour = site
    StandbyFiles(second.data).put_following("follows")
    first.start()
    second.start()
    wait_for(first.has_it, "the archive does not take it")
    neighbour.run(sys.executable, "-c", _CALL, SHARED)
    wait_for(lambda: _at(neighbour) == first.mac(), "the neighbour does not find it")

    # The archive loses its power: nobody takes it. A person promotes the standby: the neighbour is told whose it is.
    neighbour.run("ip", "link", "set", "first", "down")
    assert not second.has_it()
    StandbyFiles(second.data).end_following()
    wait_for(second.has_it, "who was promoted does not take it")
    wait_for(lambda: _at(neighbour) == second.mac(), "the neighbour was not told")

    # The old one is back, and does not know yet: both have it. It learns that it is over, and gives it up.
    neighbour.run("ip", "link", "set", "first", "up")
    LineageFiles(first.data).fence("epoch 2 was met", epoch=2)
    wait_for(lambda: not first.has_it(), "who was fenced keeps it")
    assert second.has_it()
    # It is started again before it has met anybody: it finds the address taken.
    LineageFiles(first.data).lift_fence()
    said = first.run(
        sys.executable, "-c",
        "import sys; from pathlib import Path; from pacs.machine.service_address import ServiceAddress as S\n"
        "print(S(Path(sys.argv[1])).turn(sys.argv[2]))", str(first.data), f"{SHARED}/24",
    )  # fmt: skip
    assert f"held by {second.mac()}" in said
    assert not first.has_it()


def test_without_a_setting_it_is_given_up_and_another_networks_is_not_taken(
    site: tuple[Machine, Machine, Machine],
) -> None:
    first, _second, _neighbour = site
    first.start()
    wait_for(first.has_it, "it is not taken")
    (first.data / "shared").write_text("10.99.0.30/24\n")
    wait_for(lambda: not first.has_it(), "it is kept though another one is wanted")
    (first.data / "shared").write_text(f"{SHARED}/24\n")
    wait_for(first.has_it, "it is not taken again")
    (first.data / "shared").unlink()
    wait_for(lambda: not first.has_it(), "it is kept without a setting")
