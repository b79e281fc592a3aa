"""`pacs fleet move`: an archive moves to another appliance, whatever happens to the workstation meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import peer
from tests.faults.process import wait_for
from tests.peer import RawObject
from tests.restoring import given_back
from tests.sftp_server import SftpServer
from tests.synthetic import ct_study
from tests.twins import Node
from tests.workstation import REPOSITORY, Workstation

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
QUICK = {"PACS_SETTLE_S": "0", "PACS_TIER_INTERVAL_S": "2"}

#: On an appliance `pacs standby follow` stops the services and starts them again; here the test does that.
_FOLLOWS = """#!/bin/sh
if [ "$1 $2" = "standby follow" ]; then
    cat >{folder}/text.new && mv {folder}/text.new {folder}/text
    while [ ! -e {folder}/followed ]; do sleep 0.1; done
    exit 0
fi
exec env PYTHONPATH={repository} {python} -m pacs.cli.main --data {data} "$@"
"""


@dataclass
class Site:
    """Two appliances and a workstation."""

    folder: Path
    workstation: Workstation
    old: Node
    new: Node
    known: dict[str, bytes] = field(default_factory=dict)

    def store(self, seed: int) -> set[int | None]:
        """Send a study to the old one."""
        raw = [RawObject.of(each) for each in ct_study(seed, 3)]
        answers = set(peer.store(self.old.dev.dicom_port, raw))
        if answers == {0}:
            self.known |= {each.sop_instance_uid: each.dataset for each in raw}
        return answers

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Begin a move."""
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "pacs.cli.main", "fleet", "move", "old", "new", *words]
            + ["-i", self.workstation.inventory, "--certificate", self.folder / "equality.json"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def until(self, moving: subprocess.Popen[str], words: str) -> str:
        """Read what it says, up to some words or its end."""
        assert moving.stdout is not None
        said = ""
        for line in moving.stdout:
            said += line
            if words and words in line:
                return said
        assert not words, said
        return said

    def ended(self, moving: subprocess.Popen[str]) -> tuple[int, str]:
        said = self.until(moving, "")
        return moving.wait(), said

    def follow(self, moving: subprocess.Popen[str]) -> None:
        """What the new one's services do when it is told to follow."""
        text = self.folder / "text"
        wait_for(lambda: text.exists() or moving.poll() is not None, "nobody told it to follow", timeout_s=240)
        assert text.exists(), self.ended(moving)[1]
        self.new.dev.stop()
        self.new.pacs("standby", "follow", text.read_text().strip(), "--yes")
        self.new.start_as_standby(240)
        (self.folder / "followed").touch()


@pytest.fixture
def site(short_folder: Path, tmp_path: Path, ssh_server: SftpServer) -> Iterator[Site]:
    """An archive with two studies, an empty appliance, a workstation that knows both."""
    folder = short_folder / f"move{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    nodes: list[Node] = []
    try:
        for name in ("first", "second"):
            nodes.append(Node.begin(folder, name, **QUICK))
        workstation = Workstation(tmp_path, ssh_server)
        workstation.know()
        made = Site(folder, workstation, *nodes)
        follows = _FOLLOWS.format(folder=folder, repository=REPOSITORY, python=sys.executable, data=made.new.dev.data)
        (folder / "pacs").write_text(follows)
        workstation.add("old", made.old.dev.data, pacs_peer_port=made.old.sshd.port)
        workstation.add("new", made.new.dev.data, pacs_peer_port=made.new.sshd.port, pacs_command=f"sh {folder}/pacs")
        assert [made.store(seed) for seed in (1, 2)] == [{0}, {0}]
        yield made
    finally:
        for node in nodes:
            node.end()
        shutil.rmtree(folder, ignore_errors=True)


def killed(moving: subprocess.Popen[str]) -> None:
    moving.send_signal(signal.SIGKILL)
    moving.wait()
    assert moving.stdout is not None
    moving.stdout.close()


def test_an_archive_moves_although_the_workstation_dies_twice(site: Site) -> None:
    moving = site.begin()
    site.follow(moving)
    site.until(moving, "reading its disks")
    killed(moving)
    assert site.store(3) == {0}, "the old one works"
    moving = site.begin()
    site.until(moving, "takes nothing more")
    wait_for(lambda: site.store(4) == {0xA700}, "the old one does not stop", timeout_s=120)
    killed(moving)
    returncode, said = site.ended(site.begin())
    assert returncode == 0, said
    assert "new: holds the same" in said and "new is the archive" in said

    certificate = site.folder / "equality.json"
    shown = site.new.pacs("holdings", "verify", str(certificate))
    nodes = json.loads(certificate.read_bytes())["nodes"]
    assert [(each["objects"], each["lacking"]) for each in nodes] == [(len(site.known), 0)] * 2 and "same" in shown
    found = re.findall(r"ready dicom=(\d+)", site.new.dev.log())
    site.new.dev.dicom_port = int(found[-1])
    sent = [RawObject.of(each) for seed in (1, 2, 3, 4) for each in ct_study(seed, 3)]
    every = [raw for raw in sent if raw.sop_instance_uid in site.known]
    assert given_back(site.new.dev, every) == site.known
    assert site.store(5) == {0xA700}, "the old one is fenced"
    assert json.loads(site.new.pacs("lineage", "show", "--json"))["mark"]["epoch"] == 2

    returncode, said = site.ended(site.begin("--call-off"))
    assert returncode == 2 and "has taken over: it cannot be called off" in said
    returncode, said = site.ended(site.begin())
    assert returncode == 0 and "selftest" in said, "once more does nothing"


def test_a_move_is_called_off(site: Site) -> None:
    moving = site.begin()
    site.follow(moving)
    site.until(moving, "takes nothing more")
    wait_for(lambda: site.store(4) == {0xA700}, "the old one does not stop", timeout_s=120)
    killed(moving)
    returncode, said = site.ended(site.begin("--call-off"))
    assert returncode == 0 and "Called off. old is the archive" in said, said
    wait_for(lambda: site.store(5) == {0}, "the old one does not go on", timeout_s=60)
    assert (site.old.status()["is"], site.old.status()["fenced"]) == ("the archive", None)
    assert given_back(site.old.dev, [RawObject.of(each) for each in ct_study(5, 3)])


def test_what_cannot_be_moved_is_left_as_it_is(site: Site) -> None:
    raw = [RawObject.of(each) for each in ct_study(7, 1)]
    assert peer.store(site.new.dev.dicom_port, raw) == [0]
    returncode, said = site.ended(site.begin())
    assert returncode == 2 and "new has 1 objects of its own" in said and "nothing was touched" in said
    assert site.old.status()["is"] == "an archive without a standby"
