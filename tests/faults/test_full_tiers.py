"""Every tier is full: new objects are refused, all that is here can be read, and room that is made is used at once."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import peer
from tests.faults.aftermath import rows_without_bytes
from tests.faults.process import wait_for
from tests.faults.sender import Account, missing_or_different
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_study

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def small_tiers(short_folder: Path) -> Iterator[list[Path]]:
    """Two file systems with a few MiB more than what is left free on each."""
    roots = [short_folder / f"tier{uuid.uuid4().hex[:6]}" for _ in range(2)]
    for root, size in zip(roots, ("70m", "68m"), strict=True):
        root.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(root)]
        mounted = subprocess.run(words, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield roots
    for root in roots:
        subprocess.run(["umount", "--lazy", str(root)], check=False)


def test_all_tiers_full(new_dev: Callable[..., Dev], small_tiers: list[Path]) -> None:
    one, two = small_tiers
    dev = new_dev(PACS_TIER1=str(one), PACS_TIER2=str(two), PACS_SETTLE_S="0", PACS_ORPHAN_AGE_S="0").start()
    account = Account()
    studies = [[RawObject.of(made) for made in ct_study(seed, 4, 512, 512)] for seed in range(1, 7)]

    def send(raw: list[RawObject]) -> set[int | None]:
        for each, status in zip(raw, statuses := peer.store(dev.dicom_port, raw), strict=True):
            account.sent[each.sop_instance_uid] = each
            account.note(each, status)
        return set(statuses)

    assert send(studies[0]) == {0x0000}
    dev.pacs("tier", "move")  # as much as tier 2 takes
    for raw in studies[1:]:
        send(raw)
    assert send(studies[-1]) == {OUT_OF_RESOURCES}
    dev.pacs("tier", "move", check=False)
    checked = dev.pacs("check", check=False)
    assert checked.returncode == 2
    assert checked.stdout.count("CRITICAL volumes") == 1
    assert missing_or_different(dev.dicom_port, account) == []
    assert rows_without_bytes(dev) == []

    subprocess.run(["mount", "-o", "remount,size=150m", str(one)], check=True)
    wait_for(lambda: send(studies[-1]) == {0x0000}, "objects are not taken again")
    assert missing_or_different(dev.dicom_port, account) == []
    assert rows_without_bytes(dev) == []
