"""The menu, driven by a program as a person would, on a machine of its own: with the archive's real commands behind it.

What would change the host is a stand-in that notes its words (systemctl, networkctl, chronyc) or does it in time
(systemd-run, the timer). tests/roles has the real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from pacs.machine.storage import Answer
from tests import peer
from tests.pages import Machine, machine
from tests.peer import RawObject
from tests.synthetic import ct_study
from tests.terminal import Terminal, terminal
from tests.unit.machine.test_setting_values import KEY

pytestmark = pytest.mark.long

_STANDINS = {
    **dict.fromkeys(("systemctl", "networkctl", "chronyc"), '#!/bin/sh\necho "$(basename "$0") $*" >>"$NOTED"\n'),
    "systemd-run": """#!/bin/sh
echo "systemd-run $*" >>"$NOTED"
while [ "${1#-}" != "$1" ]; do case $1 in --on-active=*) wait=${1#--on-active=};; esac; shift; done
setsid sh -c 'sleep "$1"; shift; exec "$@"' sh "${wait%s}" "$@" </dev/null >/dev/null 2>&1 &
""",
}

_READY = json.dumps(asdict(Answer(True, roles=("state",))))


class Site:
    """A machine with its own network and name, and an archive on it that knows no device."""

    def __init__(self, made: Machine) -> None:
        self.machine = made
        self.noted = made.folder / "noted"
        for name, text in _STANDINS.items():
            (made.folder / "bin" / name).write_text(text)
            (made.folder / "bin" / name).chmod(0o755)
        made.ok(
            f"cp -a /etc {made.folder}/etc; mount --bind {made.folder}/etc /etc; mount -t tmpfs tmpfs /run\n"
            f"mkdir /run/pacs-machine; mount --bind {made.folder}/bin /usr/local/bin\n"
            f"echo '{_READY}' >/run/pacs-machine/storage.json"
        )
        self.dev = made.start(PACS_ANY_DEVICE_FROM_LOOPBACK="0", NOTED=str(self.noted))

    def command(self, *words: str) -> list[str]:
        """`pacs machine …` on it, in a network and with a host name that are not the host's."""
        return [
            *self.machine._entered(), "unshare", "--net", "--uts", "env", f"NOTED={self.noted}",
            f"PATH={self.machine.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            f"PYTHONPATH={Path.cwd()}", "PACS_DATA=/srv/pacs/state", "PACS_APPLIANCE_VERSION=1.2.3",
            sys.executable, "-m", "pacs.cli.machine", *words,
        ]  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(short_folder: Path) -> Iterator[Site]:
    with machine(short_folder) as bare:
        yield Site(bare)


@pytest.fixture
def site(made: Site) -> Site:
    """With no setting made yet."""
    state = "/srv/pacs/state"
    made.machine.ok(f"rm -rf {state}/machine {state}/config/ssh {state}/config/pacs.toml; : >{made.noted}")
    return made


@pytest.fixture
def screen(site: Site, short_folder: Path) -> Iterator[Terminal]:
    with terminal(short_folder) as made:
        yield made


def value(site: Site, name: str) -> str:
    done = site.run("get", name)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def choose(screen: Terminal, label: str) -> None:
    """Choose an item of a menu: by its first letter, again and again, until it is the one that is marked."""
    screen.type(label[0])
    screen.type("Enter")


def test_from_first_boot_to_the_first_image(site: Site, screen: Terminal) -> None:
    """As the page docs/install/first-image.md goes: address, name, key, AE title, and a modality that sends."""
    screen.start(site.command("setup", "--display"))
    screen.wait("PACS appliance 1.2.3", "Network", "by DHCP", "no administrator's key yet", "waiting for it")

    screen.type("Enter")
    screen.wait("Enter changes a value", "VLAN")
    screen.type("Enter")
    screen.wait("dhcp", "static", "Where the address comes from")
    screen.type("s", "Enter")
    screen.wait("* static", "Apply")
    screen.type("A", "Enter")
    screen.wait("Static IPv4 address")
    screen.type("192.0.2.10", "Enter")
    screen.wait("no IPv4 address with its prefix length")
    screen.type("Enter")
    screen.wait("Static IPv4 address")
    screen.type("/24", "Enter")
    screen.wait("* 192.0.2.10/24")
    screen.type("A", "Enter")
    screen.wait("The network is new", "K keep it", "G go back")
    assert "networkctl reload" in site.noted.read_text()
    screen.press("k", "192.0.2.10/24", "no administrator's key yet")
    assert value(site, "address") == "192.0.2.10/24"

    screen.type("D", "Enter")
    screen.wait("DICOM ports")
    screen.type("Enter")
    screen.wait("What modalities call this archive", "Empty: PACS")
    screen.type("C-u", "ARCHIVE", "Enter")
    screen.wait("* ARCHIVE")
    screen.type("A", "Enter")
    screen.wait("AE title ARCHIVE, ports 104 11112")

    screen.type("F", "Enter")
    screen.wait("AE title ARCHIVE", "Port, TLS", "WAITING FOR YOUR FIRST IMAGE")
    objects = [RawObject.of(each) for each in ct_study(7, 1, 8, 8)]
    assert peer.store(site.dev.dicom_port, objects) == [None]  # whom it does not know it turns away
    screen.wait("TESTER at 127.0.0.1 was refused: AE title not known", "A accept it")
    screen.press("a", "Let TESTER at 127.0.0.1 store and query here?")
    screen.type("Enter")
    screen.wait("Press Enter to go on")
    screen.type("Enter")
    screen.wait("Let it send again")
    screen.type("Enter")
    screen.wait("WAITING FOR YOUR FIRST IMAGE")
    assert peer.store(site.dev.dicom_port, objects) == [0x0000]
    screen.wait("THE FIRST IMAGE IS STORED", "CT Image Storage from TESTER")
    screen.press("q", "AE title ARCHIVE, ports")
    screen.press("Escape", "Pane is dead")


def test_a_network_goes_back_by_a_key_and_by_itself(site: Site, screen: Terminal) -> None:
    screen.start(site.command("setup"), term="xterm-256color")
    for keys, words in (("g", "by DHCP"), ("", "IPv4 now: by DHCP")):
        screen.wait("Set up this appliance", "by DHCP")
        assert site.run("set", "network=static", "address=192.0.2.10/24", "--confirm-within=15").returncode == 0
        screen.type("Enter")  # whatever is opened: the change that waits stands before it, when it is left
        screen.wait("Enter changes a value")
        screen.type("Escape")
        screen.wait("The network is new", "G go back")
        if keys:
            screen.press(keys, words)
        else:
            screen.wait(words)
            screen.type("Enter")
    assert value(site, "network") == "dhcp"
    assert site.noted.read_text().count("systemd-run") == 2


def test_the_timer_takes_a_network_back_that_nobody_confirms(site: Site) -> None:
    assert "for 15 s" in site.run("set", "network=static", "address=192.0.2.10/24", "--confirm-within=15").stdout
    assert "goes back in" in site.run("list").stdout
    ends = time.monotonic() + 60
    while value(site, "network") != "dhcp":
        assert time.monotonic() < ends
        time.sleep(0.5)
    assert site.run("confirm").returncode == 9


def test_the_key_of_who_signs_in_is_taken_and_the_display_is_closed_then(site: Site, screen: Terminal) -> None:
    offered = Path.cwd() / "roles/hardening/tree/usr/local/libexec/pacs-offered-key"
    kind, blob, _comment = KEY.split()
    shown = site.machine.sh(f"su -s /bin/sh nobody -c 'sh -s {kind} {blob}' <{offered}")
    assert (shown.returncode, shown.stdout) == (0, "")  # nobody waits for it: it is not noted
    screen.start(site.command("setup", "--display"))
    screen.wait("no administrator's key yet")
    screen.type("A", "Enter")
    screen.wait("take the key of who signs in just now")
    screen.type("Enter")
    screen.wait("Waiting for a key", "ssh admin@")
    assert site.machine.ok(f"su -s /bin/sh nobody -c 'sh -s {kind} {blob}' <{offered}") == ""
    fingerprint = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=KEY, capture_output=True, text=True, check=True
    ).stdout.split()[1]
    screen.wait("Is it yours?", fingerprint)
    screen.type("Enter")
    screen.wait("Now sign in")
    screen.type("Enter")
    screen.wait("Key 1", fingerprint[:20])
    assert value(site, "administrator_keys") == f"{kind} {blob}"
    closed = site.run("setup", "--display")
    assert closed.returncode == 2
    assert "closed on this display" in closed.stderr


def test_what_ansible_manages_is_shown_as_such(site: Site, screen: Terminal) -> None:
    done = subprocess.run(
        site.command("manage"), input='{"ae_title": "THEIRS"}', capture_output=True, text=True, check=False
    )
    assert done.stdout == "changed: ae_title\n"
    assert site.run("set", "ae_title=MINE").returncode == 2
    screen.start(site.command("setup"))
    screen.wait("AE title THEIRS")
    screen.type("D", "Enter")
    screen.wait("THEIRS (Ansible)")
    screen.type("Enter")
    screen.wait("Ansible manages this setting")


def test_the_page_of_the_settings(site: Site) -> None:
    printed = site.machine.follow("machine-settings.md", {})
    assert any("Europe/Berlin" in text for text in printed)
    assert "address: '192.0.2.300/24' is no IPv4 address" in printed[-1]
    assert value(site, "host_name") == ""


def test_the_page_of_the_firewall(site: Site) -> None:
    site.machine.follow("firewall.md", {})
    kept = (site.machine.folder / "state/machine/settings.toml").read_text()
    assert 'administrators_call = "on"' in kept
    assert "10.20.0.0/16" not in kept


def test_backup_and_restore_are_the_archive_s_own_commands(site: Site, screen: Terminal) -> None:
    screen.start(site.command("setup"))
    screen.wait("where every image is copied to")
    screen.type("B", "Enter")
    screen.wait("make a place a repository")
    screen.type("S", "Enter")
    screen.wait("There is none", "Press Enter to go on")
    screen.type("Enter")
    screen.wait("Set up this appliance")
    screen.type("R", "Enter")
    screen.wait("Where is the repository?")
    screen.type("/srv/nothing", "Enter")
    screen.wait("Key of the recovery sheet")
    screen.type("C-c")  # given up: that is the command's, and the menu goes on
    screen.wait("Press Enter to go on")
    screen.type("Enter")
    screen.wait("Set up this appliance")
