"""Settings changed by every way in, on a state volume and a system of the test's own; programs are only noted down."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pacs.errors import NotFound, SettingsError, UsageError
from pacs.jobs.mail_settings import mail_settings, password_of
from pacs.machine.access import Keys
from pacs.machine.applying import System
from pacs.machine.archive_settings import ArchiveSettings
from pacs.machine.changing import Machine
from pacs.machine.engineer_sheet import sheet_of
from pacs.machine.menu_archive import news
from pacs.machine.menu_door import is_open, require_open
from pacs.machine.network_change import Network
from tests.unit.machine.test_setting_values import KEY

STATIC = {"network": "static", "address": "192.0.2.10/24", "gateway": "192.0.2.1"}


@dataclass
class Rig:
    """A machine below a folder, and what programs it would have run."""

    folder: Path
    ran: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def machine(self) -> Machine:
        state, system = self.folder / "state", System(self.folder / "root", self._run)
        keys = Keys(self.folder / "run", self.folder / "home/keys", self.folder / "etc/keys")
        links = self.folder / "links"
        for path in (state / "config", links, system.root):
            path.mkdir(parents=True, exist_ok=True)
        return Machine(
            state,
            Network(state, self.folder / "network", links, self._run),
            ArchiveSettings(state, keys, system),
            system,
        )

    def _run(self, *words: str, **_options: Any) -> subprocess.CompletedProcess[str]:
        self.ran.append(words)
        return subprocess.CompletedProcess(words, 1, "", "")

    @property
    def network(self) -> str:
        return "".join(path.read_text() for path in sorted((self.folder / "network").glob("*")))

    def file(self, name: str) -> str:
        return (self.folder / "root" / name).read_text()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_network_stays_when_it_is_confirmed(rig: Rig) -> None:
    assert rig.machine.change(STATIC)
    timer = next(words for words in rig.ran if words[0] == "systemd-run")
    assert "--on-active=120s" in timer
    # The timer is there before anything is changed.
    assert rig.ran.index(timer) < rig.ran.index(("networkctl", "reload"))
    assert "Address=192.0.2.10/24" in rig.network
    rig.machine.network.confirm()
    assert rig.machine.network.pending() is None
    assert not rig.machine.network.go_back()
    assert "Address=192.0.2.10/24" in rig.network
    with pytest.raises(NotFound):
        rig.machine.network.confirm()


def test_a_network_that_nobody_confirms_goes_back(rig: Rig) -> None:
    rig.machine.change(STATIC)
    rig.machine.network.confirm()
    rig.machine.change({"address": "198.51.100.10/24", "gateway": "198.51.100.1", "host_name": "pacs"}, 60)
    assert "198.51.100.10" in rig.network
    assert rig.machine.network.go_back()
    assert "192.0.2.10" in rig.network
    assert "198.51.100" not in rig.network
    values = rig.machine.values()
    assert (values["address"], values["host_name"]) == ("192.0.2.10/24", "pacs")  # what is not the network's stays


def test_a_restart_before_the_confirmation_goes_back_too(rig: Rig) -> None:
    rig.machine.change(STATIC)
    notes = rig.machine.start({})
    assert "not confirmed" in notes[0]
    assert rig.network == ""
    assert rig.machine.values()["network"] == "dhcp"


def test_the_record_is_there_from_before_the_change_until_after_it(rig: Rig) -> None:
    """Killed between any two steps, the next start goes back to what was."""
    machine = rig.machine

    class Killed(Exception):
        pass

    def killed(*words: str, **_options: Any) -> None:
        if words[0] == "networkctl":
            raise Killed

    dying = Network(machine.state, machine.network.files, machine.network.links, killed)
    with pytest.raises(Killed):
        Machine(machine.state, dying, machine.archive, machine.system).change(STATIC)
    assert machine.network.pending() is not None
    machine.start({})
    assert rig.network == ""


def test_only_one_change_waits(rig: Rig) -> None:
    rig.machine.change(STATIC)
    with pytest.raises(UsageError, match="waits already"):
        rig.machine.change({"address": "192.0.2.11/24"})
    assert "192.0.2.10" in rig.network


def test_what_changes_nothing_asks_for_nothing(rig: Rig) -> None:
    assert not rig.machine.change({"network": "dhcp", "dns": ""})
    assert rig.ran == []


def test_a_fault_anywhere_changes_nothing(rig: Rig) -> None:
    before = rig.machine.values()
    with pytest.raises(UsageError):
        rig.machine.change({"host_name": "new", "ae_title": "NEW", **STATIC, "gateway": "10.0.0.1"})
    with pytest.raises(UsageError, match="mailbox"):
        rig.machine.change({"host_name": "new", "mail_server": "mail.example"})  # to nobody
    assert rig.machine.values() == before
    assert rig.ran == []


def test_the_machine_s_own_settings_take_effect(rig: Rig) -> None:
    rig.machine.change(
        {"host_name": "pacs.hospital.example", "time_zone": "Europe/Berlin", "ntp": "192.0.2.123",
         "proxy": "http://proxy.example:3128", "dicom_ports": "104 4242"}
    )  # fmt: skip
    assert rig.file("etc/hostname") == "pacs.hospital.example\n"
    assert str((rig.folder / "root/etc/localtime").readlink()) == "/usr/share/zoneinfo/Europe/Berlin"
    assert rig.file("etc/chrony/sources.d/pacs.sources") == "server 192.0.2.123 iburst\n"
    assert "HTTPS_PROXY=http://proxy.example:3128\n" in rig.file("etc/pacs/machine.env")
    assert "ListenStream=\nListenStream=104\nListenStream=4242\n" in rig.file(
        "etc/systemd/system/pacs-dicom.socket.d/ports.conf"
    )
    rig.ran.clear()
    assert rig.machine.apply() == []
    assert rig.ran == []


def test_a_seed_s_own_lines_stay_beside_ours(rig: Rig) -> None:
    path = rig.folder / "root/etc/pacs/machine.env"
    path.parent.mkdir(parents=True)
    path.write_text("PACS_MACHINE_WITHOUT_VOLUMES=1\n")
    rig.machine.change({"proxy": "http://proxy.example:3128"})
    assert path.read_text().startswith("PACS_MACHINE_WITHOUT_VOLUMES=1\n# Begin")
    rig.machine.change({"proxy": ""})
    assert path.read_text() == "PACS_MACHINE_WITHOUT_VOLUMES=1\n"


def test_ports_go_back_to_the_image_s(rig: Rig) -> None:
    rig.machine.change({"dicom_ports": "4242"})
    rig.machine.change({"dicom_ports": ""})
    assert not (rig.folder / "root/etc/systemd/system/pacs-dicom.socket.d/ports.conf").exists()


def test_the_ae_title_is_changed_where_the_archive_keeps_it(rig: Rig) -> None:
    path = rig.machine.state / "config/pacs.toml"
    path.write_text('# Ours.\nsettle_s = 60\nae_title = "OLD"\nassociations_max = 8\n')
    rig.machine.change({"ae_title": "NEW PACS"})
    assert path.read_text() == '# Ours.\nsettle_s = 60\nae_title = "NEW PACS"\nassociations_max = 8\n'
    path.unlink()
    rig.machine.change({"ae_title": "OTHER"})
    assert path.read_text() == 'ae_title = "OTHER"\n'
    path.write_text('ae_title = """\nOLD"""\n')  # TOML all the same, and no line of ours
    with pytest.raises(SettingsError, match="by hand"):
        rig.machine.change({"ae_title": "NEW"})


def test_mails(rig: Rig) -> None:
    given = {"mail_server": "mail.example", "mail_from": "pacs@a.example", "mail_to": "it@a.example b@a.example"}
    rig.machine.change({**given, "mail_user": "pacs", "mail_password": "geheim"})
    rig.machine.change({"mail_port": "2525"})
    found = mail_settings(rig.machine.state)
    assert found is not None
    assert (found.host, found.port, found.to, found.tls) == (
        "mail.example", 2525, ("it@a.example", "b@a.example"), "starttls",
    )  # fmt: skip
    assert password_of(rig.machine.state) == "geheim"
    assert "geheim" not in str(rig.machine.values())
    rig.machine.change({"mail_server": ""})
    assert mail_settings(rig.machine.state) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_what_the_service_changes_too_is_the_service_s(rig: Rig) -> None:
    machine = rig.machine
    (machine.state / "journal").mkdir()
    os.chown(machine.state / "journal", 2100, 2100)
    machine.change(
        {"mail_server": "mail.example", "mail_from": "a@a.example", "mail_to": "b@a.example", "mail_password": "x",
         "ae_title": "NEW", "administrator_keys": KEY}
    )  # fmt: skip
    owners = {path.name: path.stat().st_uid for path in (machine.state / "config").iterdir()}
    assert owners == {"mail.toml": 2100, "mail.password": 2100, "pacs.toml": 2100, "ssh": 0}


def test_the_last_key_stays(rig: Rig) -> None:
    rig.machine.change({"administrator_keys": KEY})
    assert (rig.folder / "etc/keys").read_text() == f"{KEY}\n"
    with pytest.raises(UsageError, match="Without a key"):
        rig.machine.change({"administrator_keys": ""})


def test_a_key_that_is_removed_does_not_come_back_from_the_seed(rig: Rig) -> None:
    machine = rig.machine
    machine.archive.keys.seeded.parent.mkdir(parents=True)
    machine.archive.keys.seeded.write_text(f"{KEY}\nssh-ed25519 other\n")
    machine.change({"administrator_keys": KEY})
    assert machine.archive.keys.seeded.read_text() == f"{KEY}\n"


def test_a_seed_counts_when_it_says_something_new(rig: Rig) -> None:
    seed = {**STATIC, "host_name": "pacs", "administrator_keys": KEY}
    assert rig.machine.start(seed) == []
    assert "192.0.2.10" in rig.network
    assert rig.machine.network.pending() is None
    rig.machine.change({"host_name": "mine"})
    rig.machine.start(seed)
    assert rig.machine.values()["host_name"] == "mine"  # the seed says nothing new
    rig.machine.start({**seed, "host_name": "theirs"})
    assert rig.machine.values()["host_name"] == "theirs"


def test_half_a_network_is_not_taken_from_a_seed(rig: Rig) -> None:
    notes = rig.machine.start({**STATIC, "address": "192.0.2.10", "host_name": "pacs", "ntp": "!"})
    assert any("address: " in note for note in notes)
    assert any("ntp: " in note for note in notes)
    values = rig.machine.values()
    assert (values["network"], values["gateway"], values["host_name"]) == ("dhcp", "", "pacs")
    assert rig.network == ""
    assert rig.machine.start({**STATIC, "host_name": "pacs"}) == []
    assert rig.machine.values()["address"] == "192.0.2.10/24"


def test_a_network_of_a_seed_that_does_not_fit_together(rig: Rig) -> None:
    notes = rig.machine.start({**STATIC, "gateway": "10.0.0.1"})
    assert "not taken" in notes[0]
    assert rig.machine.values()["network"] == "dhcp"


def test_a_seed_adds_keys_and_takes_none(rig: Rig) -> None:
    other = KEY.replace("me@desk", "other")
    rig.machine.change({"administrator_keys": other})
    rig.machine.start({"administrator_keys": KEY})
    assert rig.machine.values()["administrator_keys"].splitlines() == [other, KEY]


def test_what_ansible_manages_nobody_else_changes(rig: Rig) -> None:
    rig.machine.change({"host_name": "mine"})
    assert rig.machine.manage({"host_name": "theirs", "ae_title": "THEIRS"}) == (["host_name", "ae_title"], False)
    assert rig.machine.manage({"host_name": "theirs", "ae_title": "THEIRS"}) == ([], False)
    assert rig.file("etc/hostname") == "theirs\n"
    with pytest.raises(UsageError, match="managed by Ansible"):
        rig.machine.change({"host_name": "mine", "ntp": "192.0.2.1"})
    rig.machine.start({"host_name": "seeded"})
    assert rig.machine.values()["host_name"] == "theirs"
    changed, _ = rig.machine.manage({"ae_title": "THEIRS"})
    assert "host_name" in changed
    assert rig.machine.values()["host_name"] == "mine"  # free again, as it was said


def test_a_managed_network_goes_back_too(rig: Rig) -> None:
    assert rig.machine.manage(STATIC)[1]
    assert "192.0.2.10" in rig.network
    rig.machine.network.go_back()
    assert rig.network == ""
    assert rig.machine.kept().managed == {}
    rig.machine.manage(STATIC)
    rig.machine.network.confirm()
    with pytest.raises(UsageError, match="managed by Ansible"):
        rig.machine.change({"address": "192.0.2.11/24"})


def test_what_a_newer_version_kept_is_not_lost(rig: Rig) -> None:
    path = rig.machine.state / "machine/settings.toml"
    path.parent.mkdir()
    path.write_text('[values]\nof_the_future = "x"\nhost_name = "pacs"\n')
    rig.machine.change({"time_zone": "UTC", "ntp": "192.0.2.1"})
    assert 'of_the_future = "x"' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_who_may_use_the_menu_on_the_display(rig: Rig, tmp_path: Path) -> None:
    line = tmp_path / "cmdline"
    line.write_text("root=/dev/sda ro\n")
    assert is_open(rig.machine, line)
    rig.machine.change({"administrator_keys": KEY})
    assert not is_open(rig.machine, line)
    with pytest.raises(UsageError, match="SSH"):
        require_open(rig.machine, line)
    rig.machine.change({"display_menu": "always"})
    assert is_open(rig.machine, line)
    rig.machine.change({"display_menu": "never"})
    assert not is_open(rig.machine, line)
    line.write_text("root=/dev/sda ro pacs.setup\n")
    assert is_open(rig.machine, line)


def test_the_engineer_s_sheet(rig: Rig) -> None:
    rig.machine.change({"ae_title": "ARCHIVE", "dicom_ports": "4242"})
    text = sheet_of(rig.machine, ("192.0.2.10", "2001:db8::10"))
    for part in ("ARCHIVE", "192.0.2.10", "2001:db8::10", "4242", "2762"):
        assert part in text
    assert all(len(line) <= 72 for line in text.splitlines())


def test_news_of_the_first_image() -> None:
    caller = {"calling_ae": "CT1", "address": "192.0.2.17", "problems": ["AE title not known"], "number": 1}
    assert "WAITING FOR YOUR FIRST IMAGE" in news({"objects": 0, "newest": [], "pending": []})
    text = news({"objects": 0, "newest": [], "pending": [caller]})
    assert "CT1 at 192.0.2.17 was refused: AE title not known." in text
    last = {"arrived_at": "2026-11-22 17:00:00+00:00", "kind": "CT Image Storage", "calling_ae": "CT1"}
    assert "THE FIRST IMAGE IS STORED" in news({"objects": 1, "newest": [last], "pending": []})
