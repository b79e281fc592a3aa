"""The firewall in a network of its own, scanned: what is open is what docs/reference/ports.md says, and no more."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs.archive.devices import add_device
from pacs.cli.instance import Instance
from pacs.index.devices import Device
from pacs.machine.firewall_sources import Gathered, as_service
from tests.walls import LISTENING, REPOSITORY, Namespace, add_address, join

DEVICE, DEVICE_6 = "10.77.0.2", "fd77::2"
NEIGHBOUR = "10.77.0.3"
STRANGER, STRANGER_6 = "198.51.100.2", "2001:db8:66::2"
#: The appliance's, as each of them sees it.
TO_DEVICE, TO_DEVICE_6, TO_STRANGER, TO_STRANGER_6 = "10.77.0.1", "fd77::1", "198.51.100.1", "2001:db8:66::1"
SITE: dict[str, Any] = {
    "clinical": ["own"],
    "administrators": ["10.77.0.0/29", "fd77::/64"],
    "own": ["10.77.0.1/24", "fd77::1/64"],
    "connections_per_address_max": 4,
}
WANTED: dict[str, Any] = {
    "site": SITE,
    "devices": [DEVICE],
    "calls": [{"what": "device ct", "host": "ct.hospital.example", "port": 4104}],
    "addresses": {"ct.hospital.example": [DEVICE, DEVICE_6]},
}


class Wall:
    """An appliance behind its wall, a clinical network and a stranger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.appliance, self.inside, self.outside = Namespace.made(), Namespace.made(), Namespace.made()
        (folder / "site").mkdir()
        join(self.appliance, TO_DEVICE, self.inside, DEVICE, "clinic")
        join(self.appliance, TO_STRANGER, self.outside, STRANGER, "world")
        for end, address, name in (
            (self.appliance, TO_DEVICE_6, "clinic"), (self.inside, DEVICE_6, "clinic"),
            (self.appliance, TO_STRANGER_6, "world"), (self.outside, STRANGER_6, "world"),
        ):  # fmt: skip
            add_address(end, address, name)
        self.appliance.run("nft", "-f", str(REPOSITORY / "roles/firewall/tree/etc/nftables.conf"))

    def apply(self, **changes: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.appliance.python("apply", str(self.folder), given=json.dumps(WANTED | changes))
        return found

    def open_to(self, who: Namespace, address: str) -> set[int]:
        """The ports that are open; every other one must be silent."""
        found = who.python("scan", address, "0.5", *map(str, LISTENING))
        assert found["closed"] == []
        return set(found["open"])

    def end(self) -> None:
        for each in (self.appliance, self.inside, self.outside):
            each.end()


@pytest.fixture
def wall(tmp_path: Path) -> Iterator[Wall]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("nft") is None:
        pytest.fail("nft is missing. `make setup` installs it.")
    made = Wall(tmp_path)
    try:
        made.appliance.listen(LISTENING)
        yield made
    finally:
        made.end()


def documented() -> dict[str, set[int]]:
    """What the page says: the ports that are open, by whom to."""
    page = (REPOSITORY / "docs/reference/ports.md").read_text("utf-8").partition("## In")[2].partition("## Out")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    found: dict[str, set[int]] = {}
    for _what, ports, whom, *_limits in rows[2:]:
        found.setdefault(whom.partition(",")[0], set()).update(int(port) for port in ports.split(","))
    return found


def test_a_scan_sees_what_the_table_says(wall: Wall) -> None:
    page = documented()
    everybody, clinical, administrators = (
        page["everywhere"],
        page["clinical networks"],
        page["administrators' networks"],
    )
    assert everybody | clinical | administrators < set(LISTENING)
    wall.apply()
    assert wall.open_to(wall.inside, TO_DEVICE) == everybody | clinical | administrators
    assert wall.open_to(wall.inside, TO_DEVICE_6) == everybody | clinical | administrators
    assert wall.open_to(wall.outside, TO_STRANGER) == everybody
    assert wall.open_to(wall.outside, TO_STRANGER_6) == everybody


def test_through_a_tunnel_comes_what_the_setting_names_and_no_more(wall: Wall) -> None:
    """A cable stands for the tunnel: the wall knows it by its name. Who comes through is in the clinical network."""
    far = Namespace.made()
    try:
        join(wall.appliance, "10.98.76.2", far, "10.98.76.1", "pacs-remote")
        site = {**SITE, "clinical": ["own", "10.98.76.0/24"], "administrators": ["10.98.76.0/24"]}
        wall.apply(site=site, tunnel={"interface": "pacs-remote", "ports": [22, 443]})
        assert wall.open_to(far, "10.98.76.2") == {22, 443}
        wall.apply(site=site, tunnel={"interface": "pacs-remote", "ports": []})
        assert wall.open_to(far, "10.98.76.2") == set()
        assert wall.open_to(wall.outside, TO_STRANGER) == documented()["everywhere"]
    finally:
        far.end()


@pytest.mark.long
def test_not_one_of_all_ports_answers_a_stranger_but_those(wall: Wall) -> None:
    wall.apply()
    found = wall.outside.python("scan", TO_STRANGER, "1", "all")
    assert set(found["open"]) == documented()["everywhere"]
    assert found["closed"] == [], "a port that answers tells that there is something"


def test_before_anything_is_applied_it_is_closed(wall: Wall) -> None:
    assert wall.open_to(wall.inside, TO_DEVICE) == {22}
    assert wall.open_to(wall.outside, TO_STRANGER) == set()
    wall.inside.listen([4104])
    assert wall.appliance.python("call", DEVICE, "4104") == "No route to host"


def test_the_strict_way_lets_registered_devices_alone_in(wall: Wall) -> None:
    wall.apply(site=SITE | {"registered_only": True, "clinical": ["10.77.0.0/24"]})
    dicom = documented()["clinical networks"]
    assert wall.open_to(wall.inside, TO_DEVICE) >= dicom
    wall.apply(site=SITE | {"registered_only": True}, devices=[NEIGHBOUR])  # another is registered, on the same network
    assert wall.open_to(wall.inside, TO_DEVICE) & dicom == set()
    wall.apply(site=SITE | {"registered_only": True}, devices=[NEIGHBOUR, "10.77.0.0/30"])
    assert wall.open_to(wall.inside, TO_DEVICE) >= dicom


def test_it_calls_whom_the_tables_name_and_nobody_else(wall: Wall) -> None:
    wall.inside.listen([4104, 4105])
    wall.outside.listen([4104])
    wall.apply()
    assert wall.appliance.python("call", DEVICE, "4104") == "connected"
    assert wall.appliance.python("call", DEVICE_6, "4104") == "connected"
    assert wall.appliance.python("call", DEVICE, "4105") == "No route to host"
    assert wall.appliance.python("call", STRANGER, "4104") == "No route to host"
    assert wall.appliance.python("call", STRANGER_6, "4104") != "connected"
    wall.apply(calls=[{"what": "setting", "host": STRANGER, "port": 4104}])
    assert wall.appliance.python("call", STRANGER, "4104") == "connected"
    assert wall.appliance.python("call", DEVICE, "4104") == "No route to host"


def test_a_device_may_open_many_connections_and_does_not_take_the_room_of_others(wall: Wall) -> None:
    wall.apply()
    at_once = 2 * SITE["connections_per_address_max"] + 64
    assert wall.inside.python("hold", TO_DEVICE, "104", "20", "20") == 20
    assert wall.inside.python("hold", TO_DEVICE, "11112", str(at_once + 5), "1") <= at_once
    assert wall.inside.python("hold", TO_DEVICE_6, "104", "20", "20") == 20, "another address"


def test_what_cannot_be_asked_keeps_what_it_had(wall: Wall) -> None:
    wall.inside.listen([4104])
    assert wall.apply()["changed"]
    assert (wall.folder / "told.json").stat().st_mode & 0o777 == 0o644, "the service's user reads it"
    answer = wall.apply(problems={"devices": "The database is away."}, addresses={})
    assert not answer["changed"]
    assert "what it named last stays" in answer["problems"][0]
    assert wall.appliance.python("call", DEVICE, "4104") == "connected"


def test_applying_again_changes_nothing_unless_somebody_has_changed_the_rules(wall: Wall) -> None:
    assert wall.apply()["changed"]
    assert wall.inside.python("hold", TO_DEVICE, "104", "3", "20") == 3  # counters and limits move by themselves
    assert not wall.apply()["changed"]
    wall.appliance.run("nft", "add", "element", "inet", "pacs", "clinical4", "{ 198.51.100.0/24 }")
    assert wall.open_to(wall.outside, TO_STRANGER) >= documented()["clinical networks"]
    assert wall.apply()["changed"]
    assert wall.open_to(wall.outside, TO_STRANGER) == documented()["everywhere"]
    wall.appliance.run("nft", "flush", "ruleset")
    assert wall.apply()["changed"]
    assert wall.open_to(wall.outside, TO_STRANGER) == documented()["everywhere"]


def test_a_site_adds_rules_and_a_broken_file_of_it_opens_and_closes_nothing(wall: Wall) -> None:
    added = wall.folder / "site" / "monitor.nft"
    added.write_text("add rule inet pacs services tcp dport 8042 ip saddr 198.51.100.2 accept\n")
    assert wall.apply() == {"changed": True, "problems": []}
    assert wall.open_to(wall.outside, TO_STRANGER) == {*documented()["everywhere"], 8042}
    added.write_text("add rule inet pacs no-such-chain accept\n")
    answer = wall.apply()
    assert "no-such-chain" in answer["problems"][0]
    assert wall.open_to(wall.outside, TO_STRANGER) == documented()["everywhere"]
    assert wall.apply() == {"changed": False, "problems": answer["problems"]}, "told of as long as it is so"


def test_what_was_in_force_last_is_loaded_at_the_next_start(wall: Wall) -> None:
    wall.apply()
    wall.appliance.run("nft", "-f", str(REPOSITORY / "roles/firewall/tree/etc/nftables.conf"))
    wall.appliance.run("nft", "-f", str(wall.folder / "kept/last.nft"))
    assert wall.open_to(wall.inside, TO_DEVICE) >= documented()["clinical networks"]
    assert wall.open_to(wall.outside, TO_STRANGER) == documented()["everywhere"]


def test_the_index_says_who_is_called_and_while_it_is_away_nothing_changes(instance: Instance) -> None:
    gathered = Gathered()
    add_device(instance.database, instance.journal, Device("ct", "CT", "ct.example", 4104, networks=("10.4.0.0/16",)))
    gathered.ask({"index": as_service(instance.settings)["index"]})
    called = [(each.host, each.port) for each in gathered.named["index"].calls]
    assert called == [("ct.example", 4104)]
    assert gathered.named["index"].devices == ("ct.example", "10.4.0.0/16")
    away = Gathered()
    settings = instance.settings.model_copy(update={"database": "host=/nowhere dbname=none"})
    away.ask({"index": as_service(settings)["index"]})
    assert away.named == {}
    assert "database" in away.problems["index"].lower()
