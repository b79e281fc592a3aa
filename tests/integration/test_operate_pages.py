"""The pages of docs/operate, tried as they are written (tests/pages.py says how)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from pacs.cli.main import COMMANDS
from tests import peer
from tests.faults.process import wait_for
from tests.pages import PAGES, Machine, machine, steps
from tests.peer import RawObject
from tests.synthetic import ct_study

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def on(short_folder: Path) -> Iterator[Machine]:
    with machine(short_folder) as made:
        yield made


def _raw(seed: int, count: int = 4) -> list[RawObject]:
    return [RawObject.of(each) for each in ct_study(seed, count)]


def _send(on: Machine, seed: int = 1) -> list[int | None]:
    assert on.dev is not None
    return peer.store(on.dev.dicom_port, _raw(seed))


def _stored(on: Machine, seed: int = 1) -> None:
    assert _send(on, seed) == [0x0000] * 4


def _comes_back(on: Machine, seed: int = 1) -> None:
    assert on.dev is not None
    raw = _raw(seed)
    offered = [(each.sop_class_uid, each.transfer_syntax_uid) for each in raw]
    taken = peer.get(on.dev.dicom_port, {peer.study_uid_of(raw[0])}, offered)
    assert {uid: each.dataset for uid, each in taken.items()} == {each.sop_instance_uid: each.dataset for each in raw}


def test_every_page_is_written_so_that_it_can_be_read_and_no_link_leads_nowhere() -> None:
    pages = sorted(PAGES.glob("*.md"))
    assert len(pages) > 5
    for page in pages:
        if "```sh" in page.read_text("utf-8"):
            assert steps(page)
        for target in _links(page):
            assert (PAGES / target).exists(), f"{page.name} links to {target}"


def _links(page: Path) -> list[str]:
    import re

    return re.findall(r"\]\(([a-z0-9/.-]+\.md)\)", page.read_text("utf-8"))


def test_disk_full(on: Machine) -> None:
    on.start(PACS_SETTLE_S="0")
    _stored(on)

    def fill() -> None:
        on.ok("fallocate -l $(($(df --output=avail -B1 /srv/pacs/state | tail -1) - 100000000)) /srv/pacs/state/filled")
        wait_for(lambda: _send(on, 2) == [OUT_OF_RESOURCES] * 4, "images are taken on")
        _comes_back(on)

    printed = on.follow(
        "disk-full.md",
        {
            "fill_the_state": fill,
            "enlarge_the_state": partial(on.ok, f"mount -o remount,size=1800m {on.folder}/state"),
            "send_a_study": lambda: wait_for(lambda: _send(on, 2) == [0x0000] * 4, "images are not taken again"),
            "images_are_taken_again": partial(_stored, on, 3),
        },
    )
    assert "kept for the database: new images are refused (0xA700)" in printed[0]
    assert any("0 failed" in each for each in printed), "tier move"
    assert "room" in printed[-2]
    assert "0xA700" not in printed[-2]
    assert "tier 2" in printed[-1]


def test_add_a_disk(on: Machine) -> None:
    on.start(PACS_SETTLE_S="0")
    _stored(on)

    def used() -> None:
        on.ok("pacs tier move")
        assert on.ok("find /srv/pacs/archive2/objects -name '*.dcm' | wc -l").strip() == "4"
        _comes_back(on)

    printed = on.follow("add-a-disk.md", {"plug_a_disk_in": partial(_plug, on), "it_is_used": used})
    assert "archive2" in printed[-2]


def _plug(on: Machine) -> None:
    on.variables["DISK"] = on.plug("fourth", 1200)


def test_backup(on: Machine) -> None:
    on.start(PACS_SETTLE_S="0")
    _stored(on)

    def shipped() -> None:
        on_disk = "find /srv/pacs/usb/objects -name '*.bin' | wc -l"  # the folder comes with the first of them
        wait_for(lambda: on.sh(on_disk).stdout.strip() == "4", "nothing is shipped")
        wait_for(lambda: "usb: nothing waits" in on.sh("pacs check").stdout, "it is behind")

    def reads_from_there() -> None:
        on.ok("mv /srv/pacs/tier1/objects /srv/pacs/tier1/lost")
        _comes_back(on)
        on.ok("mv /srv/pacs/tier1/lost /srv/pacs/tier1/objects; pacs repair run")

    hooks = {"plug_a_disk_in": partial(_plug, on), "all_is_shipped": shipped, "it_reads_from_there": reads_from_there}
    printed = on.follow("backup.md", hooks)
    assert "RECOVERY SHEET" in printed[0] and "NOT WELL" not in printed[2]


@pytest.mark.skipif(find_spec("pacs.archive.drain") is None, reason="nothing moves off a drained volume yet")
def test_replace_a_disk(on: Machine) -> None:
    on.start(PACS_SETTLE_S="0", PACS_TIER_INTERVAL_S="0.5", PACS_MOVE_GRACE_S="0")
    _stored(on)
    on.ok("pacs tier move")

    def wait() -> None:
        wait_for(partial(_is_empty, on, "tier2"), "tier 2 is not emptied")

    def all_there() -> None:
        assert on.ok("find /srv/pacs/archive2/objects -name '*.dcm' | wc -l").strip() == "4"
        on.ok("umount --lazy /srv/pacs/tier2")
        _comes_back(on)

    hooks = {"plug_a_disk_in": partial(_plug, on), "wait_until_it_is_empty": wait, "all_is_on_the_new_one": all_there}
    printed = on.follow("replace-a-disk.md", hooks)
    assert "archive2" in printed[-1]
    assert "tier2" not in printed[-1]


def _is_empty(on: Machine, name: str) -> bool:
    return bool(json.loads(on.ok(f"pacs volume show {name} --json"))["holdings"]["copies"] == 0)


def test_move_to_a_bigger_disk(on: Machine) -> None:
    on.start(PACS_SETTLE_S="0")
    _stored(on)
    on.ok("pacs tier move")

    def copy() -> None:
        assert on.dev is not None
        on.dev.stop()
        old, new = on.disks["tier2"], on.plug("bigger", 1200)
        on.ok(f"umount /srv/pacs/tier2; dd if={old} of={new} bs=1M status=none; e2fsck -fp {new}; resize2fs {new}")
        on.ok(f"mount {new} /srv/pacs/tier2")
        on.dev.start()

    def is_copy() -> None:
        assert int(on.ok("df --output=size -BM /srv/pacs/tier2 | tail -1").strip(" M\n")) > 1000
        _comes_back(on)

    printed = on.follow("move-to-a-bigger-disk.md", {"copy_the_disk_of_tier_2": copy, "it_is_the_copy": is_copy})
    assert "tier2" in printed[0]


@pytest.mark.skipif("repair" not in COMMANDS, reason="there is no `pacs repair` yet")
def test_study_missing(on: Machine) -> None:
    on.start()

    def lose() -> None:
        on.ok("rm $(find /srv/pacs/tier1/objects -name '*.dcm' | head -1)")

    hooks: dict[str, Callable[[], None]] = {
        "send_a_study": partial(_stored, on),
        "lose_a_file_of_it": lose,
        "send_it_again": partial(_stored, on),
    }
    printed = on.follow("study-missing.md", hooks)
    study_uid = peer.study_uid_of(_raw(1)[0])
    assert study_uid in printed[0]
    assert any(study_uid in each for each in printed[5:7]), "the list of what is lost says of which study"
    assert study_uid not in printed[-4]
    _comes_back(on)
