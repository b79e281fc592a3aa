"""An archive moves from one booted appliance to another, by `pacs fleet move` on an operator's workstation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.faults.process import wait_for
from tests.roles.pair import Site
from tests.roles.rootfs import REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture
def site(pristine: Path, tmp_path: Path) -> Iterator[Site]:
    with Site.booted(pristine, tmp_path) as made:
        yield made


@dataclass
class Workstation:
    """An operator's, in the network of the appliances: an inventory, their host keys, the administrator's keys."""

    site: Site
    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "equality.json"

    def set_up(self) -> None:
        hosts = {}
        with (self.folder / "known_hosts").open("w") as known:
            for name, node in (("first", self.site.first), ("second", self.site.second)):
                known.write(self.site.lan.run("ssh-keyscan", "-t", "ed25519", node.address))
                hosts[name] = {
                    "ansible_host": node.address, "ansible_user": "admin",
                    "ansible_ssh_private_key_file": str(node.container.folder / "key"),
                    "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.folder / 'known_hosts'}",
                }  # fmt: skip
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"appliance": {"hosts": hosts}}))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Begin `pacs fleet move`."""
        command = [sys.executable, "-u", "-m", "pacs.cli.main", "fleet", "move", "first", "second", *words]
        command += ["-i", str(self.folder / "hosts.yml"), "--certificate", str(self.certificate)]
        return subprocess.Popen(
            self.site.lan.inside(*command), cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SSH_AUTH_SOCK": ""},
        )  # fmt: skip

    def killed_at(self, words: str, is_so: Callable[[], bool] = lambda: True) -> None:
        """Begin, and die when it says some words, and something is so."""
        moving, said = self.begin(), ""
        assert moving.stdout is not None
        for line in moving.stdout:
            said += line
            if words in line:
                wait_for(is_so, f"it does not come further than {line}", 120)
                moving.kill()
                moving.wait()
                moving.stdout.close()
                return
        raise AssertionError(said + self.site.second.journal())

    def done(self, *words: str) -> str:
        """What it says; it must succeed."""
        moving = self.begin(*words)
        said, _nothing = moving.communicate(timeout=900)
        assert moving.returncode == 0, said + self.site.second.journal()
        return said


def test_an_archive_moves_under_load_resumed_called_off_and_done(site: Site, tmp_path: Path) -> None:
    first, second, modality = site.first, site.second, site.modality
    workstation = Workstation(site, tmp_path)
    workstation.set_up()
    modality.begin(first.address, second.address)
    modality.wait_for_more(first.address)
    following = "test -e /srv/pacs/state/config/standby/following.json"
    workstation.killed_at("copies the database", lambda: second.container.succeeds(following))
    workstation.killed_at("reading its disks")
    modality.wait_for_more(first.address)

    # The workstation dies while the first one is paused: nothing is taken, and all of it can be read.
    workstation.killed_at("takes nothing more", lambda: 0xA700 in modality.statuses_of(first.address))
    modality.end()
    compared = modality.compared(first.address)
    assert (compared["missing"], compared["different"]) == ([], [])
    assert "goes on" in workstation.done("--call-off")
    modality.begin(first.address, second.address)
    modality.wait_for_more(first.address)

    said = workstation.done()
    modality.wait_for_more(second.address)
    modality.end()
    stopped_s, went_on_s = modality.taken_by(first.address)[-1]["at_s"], modality.taken_by(second.address)[0]["at_s"]
    objects = json.loads(workstation.certificate.read_bytes())["nodes"]
    print(f"{said}\n{objects[0]['objects']} objects compared; nothing was taken for {went_on_s - stopped_s:.1f} s")
    assert went_on_s - stopped_s < 120
    assert [each["lacking"] for each in objects] == [0, 0]
    compared = modality.compared(second.address)
    assert (compared["missing"], compared["different"]) == ([], [])
    (second.container.root / "var/tmp/equality.json").write_bytes(workstation.certificate.read_bytes())
    assert "same" in second.pacs("holdings verify /var/tmp/equality.json")
    second.pacs("standby release")
    assert second.complaints() == []

    # The old one is fenced, for reading too, and stays so.
    wait_for(lambda: "epoch" in (first.json("lineage show")["fenced"] or ""), "the old one is not fenced", 60)
    first.power_off()
    first.boot()
    modality.begin(first.address)
    refused = "journalctl -b -u 'pacs-receiver@*' | grep 'association rejected: This node is fenced'"
    wait_for(lambda: first.container.succeeds(refused), "the old one is not fenced", 60)
    second.pacs("standby leave")
    assert second.json("standby status")["twin"] is None
