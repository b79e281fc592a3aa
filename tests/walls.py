"""A small network of its own for the firewall's tests: the appliance, and peers that are each on a network of theirs.

Each is a network namespace that a process holds; nothing of the host's network is seen or changed. Run as a program
(`python -m tests.walls …`, inside a namespace) it applies a firewall, listens, or scans.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
#: Ports that somebody listens on, in the appliance: what is open, and what must not be.
LISTENING = (22, 25, 80, 104, 111, 443, 2049, 2762, 5432, 8042, 11112)
_AT_ONCE = 4096


@dataclass
class Namespace:
    """A network namespace, and the processes that were started in it."""

    holder: subprocess.Popen[bytes]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @classmethod
    def made(cls) -> Namespace:
        """A new one, with loopback up."""
        script = "ip link set lo up && echo up && exec sleep infinity"
        holder = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        return cls(holder)

    @classmethod
    def of(cls, pid: int) -> Namespace:
        """That of a process which somebody else ends."""
        words = ["nsenter", "-t", str(pid), "-n", "--", "sh", "-c", "echo there && exec sleep infinity"]
        holder = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"there\n", "until then it is in the namespace it was started from"
        return cls(holder)

    def run(self, *words: str, given: str | None = None) -> str:
        """What a program prints in it; fail if it fails."""
        answer = subprocess.run(self._inside(*words), input=given, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, f"{words}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    def python(self, *words: str, given: str | None = None) -> Any:
        """What this module answers in it."""
        return json.loads(self.run(sys.executable, "-m", "tests.walls", *words, given=given))

    def listen(self, ports: Sequence[int]) -> None:
        """Listen on TCP ports, all addresses, and take every connection."""
        words = self._inside(sys.executable, "-m", "tests.walls", "listen", *map(str, ports))
        listener = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.started.append(listener)
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"

    def _inside(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "-n", "--", *words]

    def end(self) -> None:
        """End what was started in it; then it is gone."""
        for each in self.started:
            each.kill()
            each.wait()
        self.holder.kill()
        self.holder.wait()


def join(one: Namespace, address: str, other: Namespace, other_address: str, name: str, length: int = 24) -> None:
    """A cable between two, and an address of either at its end."""
    far = str(other.holder.pid)
    one.run("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", far)
    for end, own in ((one, address), (other, other_address)):
        no_check = ["nodad"] if ":" in own else []
        end.run("ip", "address", "add", f"{own}/{64 if ':' in own else length}", "dev", name, *no_check)
        end.run("ip", "link", "set", name, "up")


def add_address(end: Namespace, address: str, name: str) -> None:
    """One more address at the end of a cable."""
    no_check = ["nodad"] if ":" in address else []
    end.run("ip", "address", "add", f"{address}/{64 if ':' in address else 24}", "dev", name, *no_check)


def _apply(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    from pacs.machine import firewall as walls
    from pacs.machine.firewall_policy import Destination, Named, Site, Tunnel
    from pacs.machine.firewall_ruleset import Users
    from pacs.machine.firewall_sources import Gathered

    calls = tuple(Destination(**each) for each in wanted.get("calls", ()))
    named = {"devices": Named(calls, tuple(wanted.get("devices", ())), tuple(wanted.get("ssh", ())))}
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in wanted["site"].items()}
    tunnel = wanted.get("tunnel")
    site = Site(**values, tunnel=Tunnel(tunnel["interface"], tuple(tunnel["ports"])) if tunnel else None)
    problems = wanted.get("problems", {})
    gathered = Gathered({} if problems else named, problems)
    files = walls.FirewallFiles(folder / "kept", folder / "told.json", str(folder / "site/*.nft"))
    answer = walls.apply(files, site, gathered, Users(service=4242), (), lambda _hosts: wanted["addresses"])
    return {"changed": answer.changed, "problems": answer.problems}


def _listen(ports: Sequence[int]) -> None:
    listeners = [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in ports]
    print("listening", flush=True)
    taken = []
    while True:
        for each in select.select(listeners, [], [])[0]:
            taken.append(each.accept())


def _scan(address: str, ports: Sequence[int], wait_s: float) -> dict[str, list[int]]:
    """Which ports answer with a connection (open), which with anything else (closed). The silent ones are neither."""
    found: dict[str, list[int]] = {"open": [], "closed": []}
    for first in range(0, len(ports), _AT_ONCE):
        _scan_some(address, ports[first : first + _AT_ONCE], wait_s, found)
    return found


def _scan_some(address: str, ports: Sequence[int], wait_s: float, found: dict[str, list[int]]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    poll, asked = select.poll(), {}
    for port in ports:
        one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        one.connect_ex((address, port))
        asked[one.fileno()] = (one, port)
        poll.register(one, select.POLLOUT)
    while answers := poll.poll(wait_s * 1000):
        for fd, _event in answers:
            one, port = asked.pop(fd)
            poll.unregister(one)
            found["closed" if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) else "open"].append(port)
            one.close()
    for one, _port in asked.values():
        one.close()


def _hold(address: str, port: int, count: int, wait_s: float) -> int:
    """How many connections to a port can be open at once, of so many."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    held = 0
    kept = []
    for _ in range(count):
        one = socket.socket(family, socket.SOCK_STREAM)
        one.settimeout(wait_s)
        kept.append(one)
        try:
            one.connect((address, port))
        except TimeoutError:
            break
        held += 1
    return held


def _call(address: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as one:
        one.settimeout(20)
        try:
            one.connect((address, port))
        except OSError as error:
            return os.strerror(error.errno) if error.errno else "silence"
    return "connected"


def main(verb: str, *words: str) -> None:
    """One of: apply FOLDER (what is wanted: JSON on standard input), listen PORT…, scan, hold, call."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * _AT_ONCE, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if verb == "listen":
        _listen([int(word) for word in words])
    elif verb == "apply":
        os.umask(0o077)  # as the unit's
        print(json.dumps(_apply(Path(words[0]), json.load(sys.stdin))))
    elif verb == "scan":  # ADDRESS WAIT_S PORT…, or "all"
        ports = list(range(1, 65536)) if words[2] == "all" else [int(word) for word in words[2:]]
        print(json.dumps(_scan(words[0], ports, float(words[1]))))
    elif verb == "hold":
        print(json.dumps(_hold(words[0], int(words[1]), int(words[2]), float(words[3]))))
    else:
        print(json.dumps(_call(words[0], int(words[1]))))


if __name__ == "__main__":
    main(*sys.argv[1:])
