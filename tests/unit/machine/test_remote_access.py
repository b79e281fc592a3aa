"""Remote access as settings ask for it: whole or off, and shown once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pacs.errors import UsageError
from pacs.machine import machine_settings as table
from pacs.machine import remote_access
from pacs.machine.kept_settings import Kept
from pacs.machine.machine_settings import Effect

KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
WHOLE = {
    "wireguard_peer": KEY,
    "wireguard_endpoint": "VPN.example.com:51820",
    "wireguard_address": "10.98.76.2/24",
    "wireguard_networks": "10.98.76.1/32, 10.98.77.0/24",
}


def settings(**changes: str) -> dict[str, str]:
    return Kept(values=table.parse_all({**WHOLE, **changes})).of_effect(Effect.MACHINE)


def test_it_is_off_until_it_is_whole() -> None:
    assert remote_access.wanted(Kept().of_effect(Effect.MACHINE)) is None
    assert remote_access.endpoint_of(Kept().of_effect(Effect.MACHINE)) is None
    with pytest.raises(UsageError, match="wireguard_networks"):
        remote_access.wanted(settings(wireguard_networks=""))
    found = remote_access.wanted(settings())
    assert found is not None
    assert found.configuration == (
        f"[Peer]\nPublicKey = {KEY}\nEndpoint = vpn.example.com:51820\n"
        "AllowedIPs = 10.98.76.1/32, 10.98.77.0/24\nPersistentKeepalive = 25\n"
    )
    assert remote_access.endpoint_of(settings()) == ("vpn.example.com", 51820)
    assert remote_access.endpoint_of(settings(wireguard_endpoint="[2001:db8::1]:51820")) == ("2001:db8::1", 51820)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wireguard_peer", "not a key"),
        ("wireguard_peer", KEY[:-5] + "="),
        ("wireguard_endpoint", "vpn.example.com"),
        ("wireguard_endpoint", "vpn.example.com:0"),
        ("wireguard_address", "10.98.76.2"),
        ("wireguard_networks", "0.0.0.0/0"),
        ("wireguard_networks", "::/0"),
        ("acme_directory", "http://ca.example/dir"),
        ("acme_directory", "ca.example"),
    ],
)
def test_what_it_cannot_be_is_said(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=name):
        table.parse(name, text)


def test_what_comes_in_by_it() -> None:
    found = remote_access.tunnel_of(settings(), (104, 2762, 11112))
    assert found is not None
    assert found.ports == (22, 80, 443)
    only = remote_access.tunnel_of(settings(wireguard_open="ssh"), (104,))
    assert only is not None
    assert only.ports == (22,)
    dicom = remote_access.tunnel_of(settings(wireguard_open="ssh+https+dicom"), (104, 2762))
    assert dicom is not None
    assert dicom.ports == (22, 80, 104, 443, 2762)
    assert remote_access.tunnel_of(Kept().of_effect(Effect.MACHINE), ()) is None


def test_a_far_side_gets_an_address_beside_the_appliances() -> None:
    assert remote_access.neighbour("10.98.76.2/24") == "10.98.76.1/24"
    assert remote_access.neighbour("10.98.76.1/30") == "10.98.76.2/30"
    assert remote_access.neighbour("fd98::2/64") == "fd98::1/64"


@pytest.mark.skipif(not shutil.which("wg"), reason="needs wireguard-tools")
def test_the_own_key_is_made_once_and_a_far_sides_fits_it(tmp_path: Path) -> None:
    own = remote_access.own_key(tmp_path)
    assert remote_access.own_key(tmp_path) == own
    kept = list((tmp_path / "machine").iterdir())
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]
    public = remote_access.public_key(own)
    text = remote_access.for_far_side("PRIVATE", 51820, public, "10.98.76.2/24", "10.98.76.1/24")
    assert f"PublicKey = {public}\nAllowedIPs = 10.98.76.2/32\n" in text
    assert "ListenPort = 51820" in text
    assert own not in text


@pytest.mark.skipif(not shutil.which("qrencode"), reason="needs qrencode")
def test_a_picture_is_drawn_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = remote_access.as_picture("[Interface]\nPrivateKey = x\n")
    assert len(drawn.splitlines()) > 10
    assert list(tmp_path.iterdir()) == []
