"""The pages of docs/operate that bring an archive back, tried as they are written (tests/pages.py says how)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import peer
from tests.faults.process import wait_for
from tests.pages import Machine, machine
from tests.peer import RawObject
from tests.restoring import QUICK
from tests.synthetic import ct_study

#: A whole life of an archive, each of them.
pytestmark = pytest.mark.timeout(900)
SHEET = Path("/tmp/sheet.txt")


@pytest.fixture
def on(short_folder: Path) -> Iterator[Machine]:
    with machine(short_folder) as made:
        yield made
    SHEET.unlink(missing_ok=True)


def _raw(seed: int) -> list[RawObject]:
    return [RawObject.of(each) for each in ct_study(seed, 4)]


def _send(on: Machine, seed: int) -> None:
    assert on.dev is not None
    assert peer.store(on.dev.dicom_port, _raw(seed)) == [0x0000] * 4


def _comes_back(on: Machine, seed: int) -> None:
    assert on.dev is not None
    raw = _raw(seed)
    offered = [(each.sop_class_uid, each.transfer_syntax_uid) for each in raw]
    taken = peer.get(on.dev.dicom_port, {peer.study_uid_of(raw[0])}, offered)
    assert {uid: each.dataset for uid, each in taken.items()} == {each.sop_instance_uid: each.dataset for each in raw}


class _Archive:
    """An archive on the machine, with a repository at /srv/pacs/backup/usb, which is lost."""

    def __init__(self, on: Machine) -> None:
        self.on = on
        on.start(**QUICK, PACS_ORPHAN_AGE_S="0")
        on.ok("mkdir -p /srv/pacs/backup/usb")
        on.ok("pacs backup repository add usb --place /srv/pacs/backup/usb --on-system-disk")
        wait_for(lambda: on.sh("pacs backup run").returncode == 0, "no backup is made", timeout_s=90)
        self.key = on.ok("cat /srv/pacs/state/config/keys/sheet.key")
        _send(on, 1)
        self.good = self.wait_for_point(4)

    def wait_for_point(self, objects: int) -> str:
        """Wait for a recovery point with so many objects; return its name."""

        def look() -> str | None:
            paths = self.on.ok("ls /srv/pacs/backup/usb/points 2>/dev/null || true").split()
            found = [json.loads(self.on.ok(f"cat /srv/pacs/backup/usb/points/{path}")) for path in paths]
            return next((each["name"] for each in found if each["newest_object_key"] >= objects), None)

        return wait_for(look, "no recovery point comes", timeout_s=90)

    def lose(self) -> None:
        """The machine is gone: a new one has empty disks."""
        assert self.on.dev is not None
        self.on.dev.stop()
        self.on.ok("rm -rf /srv/pacs/state/* /srv/pacs/tier1/* /srv/pacs/tier2/*")

    def type_sheet(self) -> None:
        SHEET.write_text(self.key)

    def start(self) -> None:
        assert self.on.dev is not None
        self.on.dev.start()


def test_restore(on: Machine) -> None:
    archive = _Archive(on)
    old = on.plug("old1", 400)

    def lose() -> None:
        on.ok("cd /srv/pacs/backup/usb; mv objects away; touch objects")
        _send(on, 2)  # which reaches no repository
        assert on.dev is not None
        on.dev.stop()
        on.ok("cd /srv/pacs/backup/usb; rm objects; mv away objects")
        on.ok(f"mkfs.ext4 -q -m 0 {old}; mkdir -p /srv/pacs/old1; mount {old} /srv/pacs/old1")
        on.ok("cp -a /srv/pacs/tier1/. /srv/pacs/old1; umount /srv/pacs/old1")
        archive.lose()

    def all_is_back() -> None:
        _comes_back(on, 1)
        wait_for(partial(_is_whole, on), "it does not come back", timeout_s=90)

    hooks: dict[str, Callable[[], None]] = {
        "the_repository_is_mounted": lose,
        "type_the_sheet": archive.type_sheet,
        "the_services_run_again": archive.start,
        "all_is_back": all_is_back,
        "the_old_disk_of_tier_1_is_mounted": partial(_mount, on, old),
    }
    printed = on.follow("restore.md", hooks)
    assert "Nothing was touched" in printed[1]
    assert "1 studies, 4 objects" in printed[2]
    assert not SHEET.exists()
    _comes_back(on, 1)
    _comes_back(on, 2)


def _mount(on: Machine, device: str) -> None:
    on.ok(f"mount {device} /srv/pacs/old1")


def _is_whole(on: Machine) -> bool:
    return json.loads(on.ok("pacs restore status --json"))["finished_at"] is not None


@pytest.mark.long
def test_ransomware(on: Machine) -> None:
    archive = _Archive(on)
    assert on.dev is not None
    on.ok(
        "for file in $(find /srv/pacs/tier1 /srv/pacs/tier2 -name '*.dcm'); do head -c 5000 /dev/urandom >$file; done"
    )
    on.ok("psql -qh /srv/pacs/state/run -U pacs pacs -c \"UPDATE patient SET patient_id = 'PAY'\"")
    _send(on, 3)
    archive.wait_for_point(8)
    archive.lose()

    def choose() -> None:
        on.variables["POINT"] = archive.good

    hooks: dict[str, Callable[[], None]] = {
        "the_repository_is_mounted": lambda: None,
        "type_the_sheet": archive.type_sheet,
        "choose_the_last_good_point": choose,
        "the_services_run_again": archive.start,
    }
    printed = on.follow("ransomware.md", hooks)
    assert archive.good in printed[0]
    assert "1 studies, 4 objects" in printed[1]
    _comes_back(on, 1)
    wait_for(partial(_is_whole, on), "it does not come back", timeout_s=90)
    _comes_back(on, 1)


@pytest.mark.long
def test_drill(on: Machine) -> None:
    _Archive(on)
    printed = on.follow("drill.md", {})
    assert "4 objects known, 4 sampled, 0 differ" in printed[0] and "proven" in printed[0]
