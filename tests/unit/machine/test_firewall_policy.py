"""What the firewall opens: worked out of settings, tables and addresses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pacs.errors import DatabaseUnavailable
from pacs.index.devices import Device
from pacs.machine import firewall, firewall_sources, kept_settings
from pacs.machine.firewall_policy import Call, Destination, Named, Site, openings
from pacs.machine.firewall_ruleset import Users, render
from pacs.machine.kept_settings import Kept
from pacs.settings import load

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SITE = Site(("own",), ("private",), ("192.0.2.17/24", "2001:db8::17/64"))


def test_dicom_comes_from_the_own_subnets_and_from_registered_devices() -> None:
    devices = Named(devices=("198.51.100.7", "ct.example", "203.0.113.0/28"))
    found = openings(SITE, [devices], {"ct.example": {"198.51.100.6"}})
    assert found.dicom_from == ("192.0.2.0/24", "198.51.100.6/31", "203.0.113.0/28", "2001:db8::/64")
    assert found.ssh_from[:2] == ("10.0.0.0/8", "172.16.0.0/12")
    assert "192.0.2.0/24" in found.ssh_from


def test_the_strict_way_knows_devices_only_and_may_be_empty() -> None:
    strict = Site(("own", "10.0.0.0/8"), (), SITE.own, registered_only=True)
    found = openings(strict, [Named(devices=("198.51.100.7",))], {})
    assert found.dicom_from == ("198.51.100.7/32",)
    nothing = openings(strict, [], {})
    assert nothing.dicom_from == nothing.ssh_from == ()
    assert "elements" not in render(nothing, Users())


def test_a_twin_comes_by_ssh_and_is_called() -> None:
    twin = Named((Destination("twin", "standby.example", 2222),), ssh=("standby.example",))
    found = openings(Site((), ()), [twin], {"standby.example": ["2001:db8::5", "192.0.2.5"]})
    assert found.ssh_from == ("192.0.2.5/32", "2001:db8::5/128")
    assert found.calls == (Call("192.0.2.5", 2222, "tcp"), Call("2001:db8::5", 2222, "tcp"))


def test_a_place_in_the_cloud_opens_its_port_for_the_service_and_one_in_the_house_its_address() -> None:
    named = Named(firewall_sources.of_place("repository x", "s3", "s3://bucket", {"endpoint": "https://s3.example"}))
    cloud = openings(SITE, [named], {"s3.example": ["8.8.8.8"]})
    assert (cloud.anywhere, cloud.calls) == ((443,), ())
    assert "meta skuid 2100 tcp dport { 443 }" in render(cloud, Users(service=2100))
    house = openings(SITE, [named], {"s3.example": ["10.0.0.8"]})
    assert (house.anywhere, house.calls) == ((), (Call("10.0.0.8", 443, "tcp"),))


def test_sessions_are_named_by_their_cgroups_and_are_not_in_what_is_loaded_at_the_start() -> None:
    wanted = openings(SITE, [], {})
    assert 'cgroupv2 level 2 "system.slice/x.slice" accept' in render(wanted, Users(), ("system.slice/x.slice",))
    assert "cgroup" not in render(wanted, Users())


def test_who_calls_as_settings_and_tables_name_them() -> None:
    device = Device("ct", "CT", "ct.example", 104, networks=("10.4.0.0/16",))
    assert firewall_sources.of_devices([device]) == Named(
        (Destination("device ct", "ct.example", 104),), ("ct.example", "10.4.0.0/16")
    )
    assert firewall_sources.of_place("v", "sftp", "sftp://pacs@nas:2022/x", {}) == (Destination("v", "nas", 2022),)
    assert firewall_sources.of_place("v", "local", "/srv/pacs/usb", {}) == ()
    amazon = firewall_sources.of_place("v", "s3", "s3://bucket", {"region": "eu-central-1"})
    assert amazon == (Destination("v", "s3.eu-central-1.amazonaws.com", 443, anywhere=True),)
    assert firewall_sources.of_share("n", "nas:/pacs", ()) == Destination("share n", "nas", 2049)
    assert firewall_sources.of_share("n", "[2001:db8::1]:/pacs", ()).host == "2001:db8::1"
    assert firewall_sources.of_share("n", "//nas/pacs", ("port=4455",)) == Destination("share n", "nas", 4455)
    proxies = firewall_sources.of_environment(
        {"HTTPS_PROXY": "http://proxy.example:3128", "http_proxy": "other.example"}
    )
    assert set(proxies.calls) == {
        Destination("proxy", "proxy.example", 3128),
        Destination("proxy", "other.example", 80),
    }
    assert firewall_sources.of_environment({}) == Named()
    setting = firewall_sources.of_setting(("proxy.example:3128", "[2001:db8::9]:514/udp"))
    assert setting.calls[0] == Destination("setting outgoing", "proxy.example", 3128)
    assert setting.calls[1] == Destination("setting outgoing", "2001:db8::9", 514, "udp")


def test_every_file_of_an_instance_says_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "config/repositories").mkdir(parents=True)
    (tmp_path / "config/repositories/nas.toml").write_text('place = "sftp://pacs@nas.example/backup"\nkind = "sftp"\n')
    (tmp_path / "config/mail.toml").write_text('host = "mail.example"\nsender = "a@b"\nto = ["c@d"]\ntls = "none"\n')
    gathered = firewall_sources.Gathered()
    kept = Kept({"outgoing": "192.0.2.1:80", "proxy": "http://proxy.example:3128"})
    sources = firewall_sources.as_service(load(tmp_path)) | firewall_sources.as_root(tmp_path, {}, kept)
    del sources["index"], sources["shares"]  # tests/integration/machine/test_walls.py
    gathered.ask(sources)
    called = {(each.host, each.port) for named in gathered.named.values() for each in named.calls}
    assert called == {("nas.example", 22), ("mail.example", 25), ("192.0.2.1", 80), ("proxy.example", 3128)}
    assert gathered.problems == {}


def test_the_machine_s_settings_are_the_firewall_s(tmp_path: Path) -> None:
    ports = (104,)
    assert firewall_sources.site_of(Kept(), 96, (), ports) == Site(("own",), ("own", "private"), dicom_ports=ports)
    kept_settings.save(
        tmp_path,
        Kept(
            {"clinical_networks": "own 10.20.0.0/16", "administrator_networks": "10.1.5.0/24"},
            managed={"registered_devices_only": "on"},
        ),
    )
    strict = firewall_sources.site_of(kept_settings.load(tmp_path), 96, (), ports)
    assert strict == Site(("own", "10.20.0.0/16"), ("10.1.5.0/24",), registered_only=True, dicom_ports=ports)


def test_a_source_that_fails_says_why_and_keeps_the_others() -> None:
    def away() -> Named:
        raise DatabaseUnavailable("The database is away.")

    gathered = firewall_sources.Gathered()
    gathered.ask({"devices": away, "mail": lambda: Named(devices=("x",))})
    assert gathered.problems == {"devices": "The database is away."}
    assert gathered.named == {"mail": Named(devices=("x",))}


def test_addresses_of_a_name_are_kept_for_a_day_and_while_it_cannot_be_looked_up() -> None:
    known = firewall.Known({"devices": Named(devices=("ct.example", "192.0.2.1", "10.0.0.0/8"))})
    assert firewall.refresh(known, lambda hosts: {host: {"198.51.100.1"} for host in hosts}, NOW) == []
    assert list(known.addresses) == ["ct.example"]
    later = NOW + timedelta(hours=23)
    firewall.refresh(known, lambda _hosts: {"ct.example": {"198.51.100.2"}}, later)
    assert sorted(known.addresses["ct.example"]) == ["198.51.100.1", "198.51.100.2"]
    problems = firewall.refresh(known, lambda _hosts: {}, later + timedelta(days=9))
    assert "ct.example cannot be looked up: what it had stays" in problems[0]
    assert sorted(known.addresses["ct.example"]) == ["198.51.100.1", "198.51.100.2"]
    firewall.refresh(known, lambda _hosts: {"ct.example": {"198.51.100.2"}}, later + timedelta(days=9))
    assert sorted(known.addresses["ct.example"]) == ["198.51.100.2"]
    known.named.clear()
    firewall.refresh(known, lambda _hosts: {}, NOW)
    assert known.addresses == {}


def test_a_memory_that_cannot_be_read_is_asked_for_anew(tmp_path: Path) -> None:
    files = firewall.FirewallFiles(tmp_path)
    for content in ("", "{", '{"format": 2}', '{"format": 1, "named": {"x": 3}, "addresses": {}}', "[]"):
        files.known.write_text(content)
        assert firewall.read_known(files) == firewall.Known()


def test_the_machine_says_its_subnets_and_the_ports_that_it_takes_dicom_on() -> None:
    def card(flags: list[str], *addresses: tuple[str, int, str]) -> dict[str, Any]:
        found = [{"local": local, "prefixlen": length, "scope": scope} for local, length, scope in addresses]
        return {"flags": flags, "addr_info": found}

    interfaces = [
        card(["LOOPBACK", "UP"], ("127.0.0.1", 8, "host"), ("10.9.9.9", 32, "global")),
        card(["UP"], ("192.0.2.17", 24, "global"), ("fe80::17", 64, "link")),
        card(["POINTOPOINT", "UP"], ("10.8.0.2", 24, "global")),
        {},
    ]
    assert firewall.subnets_of(interfaces) == ("192.0.2.17/24", "fe80::17/64")
    assert firewall.ports_of("[::]:104 (Stream)\n[::]:11112 (Stream)\n\n[::]:2762 (Stream)\n") == (104, 2762, 11112)
    assert firewall.ports_of("4104 (Stream)\n/run/pacs/x.sock (Stream)\n") == (4104,)
