"""Host names: looked up once a minute, never waited for long, and what was known counts while nobody answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pacs.archive import hosts
from pacs.archive.hosts import Hosts
from pacs.index.devices import Device

Answer = list[tuple[Any, ...]]


class NameServer:
    """Answers getaddrinfo from a table, and counts; a name can be made to hang or fail."""

    def __init__(self) -> None:
        self.table: dict[str, list[str] | OSError] = {}
        self.asked: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def getaddrinfo(self, host: str, port: object) -> Answer:
        self.asked.append(host)
        self.go.wait(10)
        found = self.table.get(host, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(found, OSError):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    return server


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock on."""
    now = [1000.0]
    monkeypatch.setattr(hosts.clock, "monotonic_s", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_an_address_is_no_name_to_look_up(names: NameServer) -> None:
    assert Hosts().addresses("::ffff:192.0.2.1") == {"192.0.2.1"}
    assert names.asked == []


def test_a_name_is_looked_up_once_a_minute(names: NameServer, pass_time: Callable[[float], None]) -> None:
    names.table["ct1"] = ["192.0.2.1", "2001:db8::1"]
    known = Hosts()
    assert [known.addresses("ct1") for _ in range(3)] == [{"192.0.2.1", "2001:db8::1"}] * 3
    assert names.asked == ["ct1"]
    names.table["ct1"] = ["192.0.2.2"]
    pass_time(hosts.KEPT_S + 1)
    assert known.addresses("ct1") == {"192.0.2.2"}


def test_a_name_that_is_gone_is_gone_and_one_that_nobody_answers_for_is_not(
    names: NameServer, pass_time: Callable[[float], None]
) -> None:
    names.table["ct1"] = ["192.0.2.1"]
    known = Hosts()
    assert known.addresses("ct1")
    names.table["ct1"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    pass_time(hosts.KEPT_S + 1)
    assert known.addresses("ct1") == {"192.0.2.1"}
    del names.table["ct1"]
    pass_time(hosts.FAILURE_KEPT_S + 1)
    assert known.addresses("ct1") == frozenset()


def test_who_waits_for_a_silent_name_server_holds_up_nobody_else(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "WAIT_S", 0.01)
    names.table["slow"] = ["192.0.2.1"]
    names.go.clear()
    known = Hosts()
    assert [known.addresses("slow") for _ in range(5)] == [frozenset()] * 5
    assert names.asked == ["slow"], "one look-up, whoever asks"
    assert known.addresses("192.0.2.9") == {"192.0.2.9"}
    monkeypatch.setattr(hosts, "WAIT_S", 10)
    names.go.set()
    assert known.addresses("slow") == {"192.0.2.1"}


def test_a_device_calls_from_its_host_or_its_networks(names: NameServer) -> None:
    names.table["ct1"] = ["192.0.2.1"]
    device = Device("ct1", "CT1", "ct1", 104, networks=("198.51.100.0/24",))
    known = Hosts()
    assert known.may_call_from(device, "::ffff:192.0.2.1")
    assert known.may_call_from(device, "198.51.100.77")
    assert not known.may_call_from(device, "192.0.2.2")
    assert not known.may_call_from(Device("x", "X", "nowhere", 104), "192.0.2.1")
