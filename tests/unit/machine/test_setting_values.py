"""What a value of the machine's settings may be. What is refused says how it is written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pacs.errors import UsageError
from pacs.machine import setting_values as values
from pacs.machine.machine_settings import SETTINGS, TABLE, parse, parse_all, reference, require_consistent

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@desk"


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("network", " Static ", "static"),
        ("address", "192.0.2.10/24", "192.0.2.10/24"),
        ("address", "192.0.2.0/31", "192.0.2.0/31"),
        ("gateway", "192.0.2.1", "192.0.2.1"),
        ("ipv6_address", "2001:DB8::10/64", "2001:db8::10/64"),
        ("vlan", "0120", "120"),
        ("card", "00-50-56-AA-BB-CC", "00:50:56:aa:bb:cc"),
        ("second_address", "DHCP", "dhcp"),
        ("routes", "10.0.0.0/8 via 192.0.2.254;\n10.0.0.0/8 via 192.0.2.254", "10.0.0.0/8 via 192.0.2.254"),
        ("dns", "192.0.2.53, 2001:db8::53;192.0.2.53", "192.0.2.53 2001:db8::53"),
        ("search_domains", "Hospital.example", "hospital.example"),
        ("host_name", "PACS.Hospital.example.", "pacs.hospital.example"),
        ("time_zone", "europe/berlin", "Europe/Berlin"),
        ("ntp", "ntp1.hospital.example 192.0.2.123", "ntp1.hospital.example 192.0.2.123"),
        ("proxy", "proxy.hospital.example:3128/", "http://proxy.hospital.example:3128"),
        ("proxy", "http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080"),
        ("ae_title", " MY PACS ", "MY PACS"),
        ("dicom_ports", "104,4242", "104 4242"),
        ("mail_to", "it@a.example; oncall@b.example", "it@a.example oncall@b.example"),
        ("administrator_keys", f"{KEY}\n\n{KEY}\n", KEY),
        ("clinical_networks", "OWN, 10.20.3.4/16; 2001:DB8::/32", "own 10.20.0.0/16 2001:db8::/32"),
        ("administrator_networks", "10.1.5.7 private", "10.1.5.7/32 private"),
        ("registered_devices_only", "On", "on"),
        ("outgoing", "Proxy.hospital.example:3128, 192.0.2.9:514/udp", "proxy.hospital.example:3128 192.0.2.9:514/udp"),
        ("outgoing", "[2001:db8::9]:514", "[2001:db8::9]:514"),
    ],
)
def test_what_is_taken(name: str, text: str, kept: str) -> None:
    assert parse(name, text) == kept
    assert parse(name, kept) == kept


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("network", "fixed"),
        ("address", "192.0.2.10"),  # no prefix
        ("address", "192.0.2.0/24"),  # the network
        ("address", "192.0.2.255/24"),  # its broadcast
        ("address", "127.0.0.1/8"),
        ("address", "224.0.0.1/8"),
        ("address", "169.254.1.1/16"),
        ("address", "192.0.2.10/0"),
        ("address", "2001:db8::1/64"),
        ("gateway", "router"),
        ("gateway", "192.0.2.300"),
        ("ipv6_address", "192.0.2.10/24"),
        ("vlan", "4095"),
        ("vlan", "-1"),
        ("card", "eth0"),
        ("routes", "10.0.0.0/8"),
        ("routes", "10.0.0.1/8 via 192.0.2.1"),  # bits beyond the prefix
        ("routes", "10.0.0.0/8 via 2001:db8::1"),
        ("dns", "dns.hospital.example"),
        ("host_name", "pacs_1"),
        ("host_name", "192.0.2.1"),
        ("host_name", "a" * 65),
        ("host_name", "x; reboot"),
        ("time_zone", "Berlin"),
        ("ntp", "time server!"),
        ("proxy", "https://proxy:3128"),
        ("proxy", "http://user:secret@proxy:3128"),
        ("proxy", "http://proxy"),
        ("proxy", "http://proxy:99999"),
        ("own_ca", "no certificate"),
        ("own_ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
        ("ae_title", "SEVENTEEN LETTERS"),
        ("ae_title", "a\\b"),
        ("dicom_ports", "22"),
        ("dicom_ports", "104 70000"),
        ("mail_to", "it"),
        ("clinical_networks", "10.20.0.0/33"),
        ("administrator_networks", "everywhere"),
        ("outgoing", "proxy.hospital.example"),
        ("outgoing", "192.0.2.9:514/icmp"),
        ("outgoing", "2001:db8::9:514"),
        ("administrators_call", "perhaps"),
        ("administrator_keys", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("administrator_keys", KEY[:40]),
        ("administrator_keys", f'command="sh" {KEY}'),
    ],
)
def test_what_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: ") as caught:
        parse(name, text)
    assert str(caught.value).endswith(".")


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(UsageError) as caught:
        parse("proxy", "http://user:geheim@proxy:3128")
    assert "geheim" not in str(caught.value)


def test_own_ca_in_every_form_that_a_way_in_leaves_of_it(tmp_path: Path) -> None:
    import base64

    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ca -days 2"
    subprocess.run(
        [*command.split(), "-keyout", tmp_path / "key", "-out", tmp_path / "pem"], check=True, capture_output=True
    )
    pem = (tmp_path / "pem").read_text()
    kept = parse("own_ca", pem)
    assert kept == pem
    assert parse("own_ca", pem.replace("\n", " ")) == pem
    assert parse("own_ca", base64.b64encode(pem.encode()).decode()) == pem
    assert parse("own_ca", pem + pem) == pem
    with pytest.raises(UsageError, match="never a private key"):
        parse("own_ca", pem + (tmp_path / "key").read_text())


def test_empty_stands_for_the_default() -> None:
    assert {parse(name, "  ") for name in SETTINGS} == {""}


def test_defaults_are_values() -> None:
    for row in TABLE:
        assert not row.default or parse(row.name, row.default) == row.default
        assert row.meaning.endswith(".")


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"vlan: .*ntp: "):
        parse_all({"vlan": "x", "host_name": "pacs", "ntp": "!"})
    with pytest.raises(UsageError, match="no setting 'adress'"):
        parse_all({"adress": "192.0.2.1/24"})


STATIC = {"network": "static", "address": "192.0.2.10/24"}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"network": "static"}, "network: "),
        ({"ipv6": "static"}, "ipv6: "),
        ({**STATIC, "gateway": "198.51.100.1"}, "gateway: 198.51.100.1 is not in 192.0.2.0/24"),
        ({**STATIC, "gateway": "192.0.2.10"}, "own address"),
        ({"ipv6": "static", "ipv6_address": "2001:db8::1/64", "ipv6_gateway": "2001:db9::1"}, "ipv6_gateway: "),
        ({**STATIC, "second_address": "192.0.2.77/25"}, "second_address: "),
        ({"card": "00:50:56:aa:bb:cc", "second_card": "00:50:56:aa:bb:cc"}, "second_card: "),
        ({**STATIC, "routes": "10.0.0.0/8 via 198.51.100.1"}, "routes: "),
    ],
)
def test_values_that_make_no_network_together(given: dict[str, str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        require_consistent(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {**STATIC, "gateway": "192.0.2.1", "routes": "10.0.0.0/8 via 192.0.2.254"},
        {"routes": "10.0.0.0/8 via 198.51.100.1"},  # by DHCP: nobody knows its network
        {**STATIC, "second_address": "198.51.100.5/24", "routes": "10.0.0.0/8 via 198.51.100.1"},
        {"ipv6": "static", "ipv6_address": "2001:db8::1/64", "ipv6_gateway": "fe80::1"},
        {"gateway": "192.0.2.1"},  # kept for when it is static again
    ],
)
def test_values_that_do(given: dict[str, str]) -> None:
    require_consistent(given)


def test_lists_are_parted_by_what_people_write() -> None:
    assert values.parts(" a, b;c\n d ") == ["a", "b", "c", "d"]


def test_the_reference_is_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/machine-settings.md").read_text("utf-8")
    assert page.endswith(reference())
