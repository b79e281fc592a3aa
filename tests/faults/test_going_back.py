"""Disks put back to earlier moments, as snapshots and clones of a hypervisor do: data folders of a real instance,
copied at two moments and put together again.

At each moment the instance is killed, so that a copy is what a snapshot of the disk would be. Whatever is put together:
it starts, says what went back, and every acknowledged object that is on any of the disks is found again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pacs.storage.names import sha256_in_name
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject, store
from tests.synthetic import ct_study

_TIERS = ("tier1", "tier2")
_SETTINGS = {"PACS_TIER_INTERVAL_S": "0.5", "PACS_ORPHAN_AGE_S": "1", "PACS_SETTLE_S": "0", "PACS_MOVE_GRACE_S": "0"}


@dataclass
class Moments:
    """What the disks were at two moments, and the objects that were acknowledged by then."""

    old: Path
    new: Path
    sent: dict[str, list[RawObject]]


def copy_disks(source: Path, target: Path, names: Callable[[str], bool]) -> None:
    """Copy those parts of a data folder whose names are meant, as they are."""
    target.mkdir(exist_ok=True)
    shutil.copystat(source, target)
    for part in source.iterdir():
        if names(part.name) and not part.is_socket():
            subprocess.run(["cp", "-a", str(part), str(target)], check=True)


def shown(dev: Dev) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dev.pacs("lineage", "show", "--json").stdout)
    return found


def check_of(dev: Dev, name: str = "lineage") -> dict[str, str]:
    results = json.loads(dev.pacs("check", "--json", check=False).stdout)
    return next(each for each in results if each["name"] == name)


def objects_on(data: Path) -> set[bytes]:
    """The digests of the objects on the volumes of a data folder, by their files' names."""
    names = (sha256_in_name(str(path)) for tier in _TIERS for path in (data / tier / "objects").rglob("*.dcm"))
    return {name for name in names if name}


def objects_in_index(dev: Dev) -> set[bytes]:
    """The digests of the objects that the index has a good copy of."""
    import psycopg

    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        rows = connection.execute(
            "SELECT DISTINCT o.sha256 FROM object o JOIN copy c USING (object_key) WHERE c.state = 'good'"
        ).fetchall()
    return {bytes(row[0]) for row in rows}


def timeline_of(dev: Dev) -> int:
    import psycopg

    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        row = connection.execute("SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int")
        found = row.fetchone()
    assert found is not None
    return int(found[0])


def beaten(dev: Dev, times: int = 2) -> None:
    """Wait until the marks were moved on."""
    begun = (shown(dev)["mark"] or {"generation": 0})["generation"]
    wait_for(lambda: (shown(dev)["mark"] or {"generation": 0})["generation"] >= begun + times, "no mark is moved on")


@pytest.fixture(scope="module")
def moments(short_folder: Path) -> Iterator[Moments]:
    """An instance copied at two moments; between them objects came, others went to tier 2, a device was added."""
    dev = Dev(short_folder / "back", {"PACS_RECEIVERS": "1", **_SETTINGS}).start()
    old, new = short_folder / "back-old", short_folder / "back-new"
    try:
        first = [RawObject.of(each) for each in ct_study(1, 3)]
        assert store(dev.dicom_port, first) == [0] * 3
        dev.pacs("device", "add", "early", "--ae-title", "EARLY", "--host", "127.0.0.1", "--port", "4242")
        beaten(dev)
        dev.kill_all()
        copy_disks(dev.data, old, lambda name: True)
        dev.start()
        # All that was on tier 1 goes to tier 2, and its files on tier 1 go away.
        dev.pacs("tier", "rule", "add", "all", "--from", "1", "--to", "2", "--modality", "CT")
        wait_for(lambda: not list((dev.data / "tier1" / "objects").rglob("*.dcm")), "nothing moves", 60)
        dev.pacs("tier", "rule", "remove", "all")
        second = [RawObject.of(each) for each in ct_study(2, 2)]
        assert store(dev.dicom_port, second) == [0] * 2
        dev.pacs("device", "add", "late", "--ae-title", "LATE", "--host", "127.0.0.1", "--port", "4243")
        beaten(dev, 4)
        dev.kill_all()
        copy_disks(dev.data, new, lambda name: True)
        yield Moments(old, new, {"old": first, "new": [*first, *second]})
    finally:
        dev.stop()
        for folder in (dev.data, old, new):
            shutil.rmtree(folder, ignore_errors=True)


_LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("state", "tier1", "tier2"),
    [
        ("old", "new", "new"),
        ("new", "old", "new"),
        ("old", "old", "new"),
        pytest.param("new", "new", "old", marks=_LONG),
        pytest.param("new", "old", "old", marks=_LONG),
        pytest.param("old", "new", "old", marks=_LONG),
    ],
)
def test_what_is_on_any_disk_is_found_again(
    moments: Moments, new_dev: Callable[..., Dev], state: str, tier1: str, tier2: str
) -> None:
    taken = {"old": moments.old, "new": moments.new}
    dev = new_dev(**_SETTINGS)
    copy_disks(taken[state], dev.data, lambda name: name not in _TIERS)
    for tier, moment in zip(_TIERS, (tier1, tier2), strict=True):
        copy_disks(taken[moment], dev.data, lambda name, tier=tier: name == tier)
    there = objects_on(dev.data)
    dev.start()
    notice = wait_for(lambda: (found := shown(dev)["reverted"]) and found["reconciled_at"] and found, "not noticed", 60)
    assert notice["is_state"] == (state == "old")
    assert objects_in_index(dev) == there
    assert timeline_of(dev) == (2 if state == "old" else 1)
    said = check_of(dev)
    assert said["severity"] == "warning", said
    assert "went back in time" in said["message"]
    assert "late" in dev.pacs("device", "list").stdout  # the journal on whichever disk is newer
    # Acknowledged, and started again: all is well, nothing is noticed twice.
    dev.pacs("lineage", "acknowledge")
    beaten(dev)
    dev.stop()
    dev.start()
    beaten(dev)
    assert shown(dev)["reverted"] is None
    assert check_of(dev)["severity"] == "ok"
    assert timeline_of(dev) == (2 if state == "old" else 1)


def test_a_power_cut_is_no_alarm(moments: Moments, new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(**_SETTINGS)
    copy_disks(moments.new, dev.data, lambda name: True)
    for _turn in range(3):
        dev.start()
        beaten(dev, 1)
        assert shown(dev)["reverted"] is None
        dev.kill_all()
