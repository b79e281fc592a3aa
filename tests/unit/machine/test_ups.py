"""NUT's configuration made of the settings, and when a charge is too low; NUT itself is in tests/image/test_ups.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from pacs.errors import UsageError
from pacs.machine import applying, ups
from pacs.machine.kept_settings import Kept
from pacs.machine.machine_settings import Effect, parse

_SCANNED = """[nutdev1]
\tdriver = "blazer_usb"\t# alternately: nutdrv_qx
\tport = "auto"
\tvendorid = "0665"

[nutdev2]
\tdriver = "usbhid-ups"
\tport = "auto"
"""


def settings(**said: str) -> dict[str, str]:
    return Kept({name: parse(name, text) for name, text in said.items()}).of_effect(Effect.MACHINE)


class Programs:
    """Notes what is run; no unit is active until it was started."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, *words: str, accept: object = None) -> object:
        self.ran.append(" ".join(words))
        is_active = words[1] != "is-active" or any(words[-1] in line for line in self.ran if "restart" in line)
        return type("Answer", (), {"returncode": 0 if is_active else 3})()


@pytest.fixture
def programs() -> Programs:
    return Programs()


@pytest.fixture
def system(tmp_path: Path, programs: Programs) -> applying.System:
    (tmp_path / "etc/nut").mkdir(parents=True)
    (tmp_path / "etc/localtime").touch()
    return applying.System(tmp_path, programs)


def text(system: applying.System, name: str) -> str:
    return system.path(f"etc/nut/{name}").read_text()


def test_a_ups_of_this_machine_is_served_on_loopback_alone(system: applying.System, programs: Programs) -> None:
    found = settings(ups="local", ups_driver="apcsmart /dev/ttyS0")
    assert "ups" in applying.apply(found, system)
    assert "driver = apcsmart\n\tport = /dev/ttyS0\n" in text(system, "ups.conf")
    assert re.findall("^LISTEN .*", text(system, "upsd.conf"), re.M) == ["LISTEN 127.0.0.1 3493"]
    password = re.search(r"password = (\w{32})\n", text(system, "upsd.users"))
    assert password
    assert f"MONITOR ups@localhost 1 pacs {password[1]} primary\n" in text(system, "upsmon.conf")
    assert system.path("etc/nut/upsd.users").stat().st_mode & 0o777 == 0o640
    assert """PACS_UPS='["ups@localhost"]'\n""" in system.path("etc/pacs/machine.env").read_text()
    started = "systemctl --no-block restart pacs-ups.path nut-driver@ups.service nut-server.service nut-monitor.service"
    assert programs.ran.count(started) == 1
    assert applying.apply(found, system) == [], "the password stays, and nothing is restarted"
    assert programs.ran.count(started) == 1


def test_a_remote_one_is_asked_and_nothing_is_served_here(system: applying.System, programs: Programs) -> None:
    applying.apply(settings(ups="local"), system)
    login = {"ups_user": "pacs", "ups_password": "s3cret"}
    found = settings(ups="remote", ups_server="rack@nut.example:3500", **login)
    applying.apply(found, system)
    assert "MONITOR rack@nut.example:3500 1 pacs s3cret secondary\n" in text(system, "upsmon.conf")
    assert not system.path("etc/nut/upsd.conf").exists() and not system.path("etc/nut/ups.conf").exists()
    assert "systemctl stop nut-driver@ups.service nut-server.service" in programs.ran
    assert ups.server_of(found) == ("nut.example", 3500)
    assert ups.server_of(settings(ups="remote", ups_server="a@[2001:db8::1]", **login)) == ("2001:db8::1", 3493)
    applying.apply(settings(), system)
    assert "MODE=none" in text(system, "nut.conf") and not system.path("etc/nut/configured").exists()
    assert "PACS_UPS" not in system.path("etc/pacs/machine.env").read_text()


def test_half_a_remote_one_is_refused() -> None:
    with pytest.raises(UsageError, match="ups_user"):
        ups.require_whole(settings(ups="remote", ups_server="ups@192.0.2.1"))
    for name, wrong in (
        ("ups_server", "nut.example"),
        ("ups_driver", "apcsmart /dev/ttyS0\nuser = root"),
        ("ups_password", 'a "b"'),
        ("ups_shutdown_charge", "0"),
        ("ups_shutdown_charge", "half"),
    ):
        with pytest.raises(UsageError, match=name):
            parse(name, wrong)
    assert parse("ups_shutdown_charge", "40 %") == "40"


def test_the_driver_is_found_on_usb() -> None:
    assert ups.scanned(_SCANNED) == "blazer_usb auto"
    assert ups.scanned("") == "usbhid-ups auto"


def test_it_shuts_down_at_the_charge_and_not_when_the_power_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "upsmon").write_text(f"#!/bin/sh\necho $* >{tmp_path}/told\n")
    (tmp_path / "upsmon").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def watched(*said: Mapping[str, str]) -> bool:
        answers = iter(said)
        return ups.watch("ups@localhost", 40, lambda _name: next(answers), lambda _seconds: None)

    on, off = {"ups.status": "OL CHRG"}, {"ups.status": "OB DISCHRG"}
    assert not watched({**off, "battery.charge": "41"}, {}, off, on)
    assert not (tmp_path / "told").exists()
    assert watched({**off, "battery.charge": "41"}, {**off, "battery.charge": "40"})
    assert (tmp_path / "told").read_text() == "-c fsd\n"
