"""Disks put back to earlier moments, as snapshots and clones of a hypervisor do: data folders of a real instance,
copied at two moments and put together again.

At each moment the instance is killed, so that a copy is what a snapshot of the disk would be. Whatever is put together:
it starts, says what went back, and every acknowledged object that is on any of the disks is found again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pacs.cli.instance import Instance
from pacs.index.refusals import list_refusals
from pacs.net.negotiation import REJECTED_CONGESTION, Caller, Negotiation
from pacs.net.refusals import Refusals
from pacs.storage.lineage import LineageFiles
from pacs.storage.names import sha256_in_name
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject, get, store, study_uid_of
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
    """What `pacs lineage show --json` prints, without the half second that a command takes."""
    files = LineageFiles(dev.data)
    state, notice = files.state(), files.reverted()
    return {
        "mark": asdict(state.mark) if state else None,
        "fenced": files.fenced(),
        "reverted": asdict(notice) if notice else None,
        "trial": None,
    }


def check_of(dev: Dev, name: str = "lineage") -> dict[str, str]:
    results = json.loads(dev.pacs("check", "--json", check=False).stdout)
    return next(each for each in results if each["name"] == name)


def objects_on(data: Path) -> set[bytes]:
    """The digests of the objects on the volumes of a data folder, by their files' names."""
    names = (sha256_in_name(str(path)) for tier in _TIERS for path in (data / tier / "objects").rglob("*.dcm"))
    return {name for name in names if name}


def objects_in_index(dev: Dev) -> set[bytes]:
    """The digests of the objects that the index has a good copy of."""
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        rows = connection.execute(
            "SELECT DISTINCT o.sha256 FROM object o JOIN copy c USING (object_key) WHERE c.state = 'good'"
        ).fetchall()
    return {bytes(row[0]) for row in rows}


def arrivals_in_index(dev: Dev) -> dict[bytes, tuple[datetime, str]]:
    """When objects that a good copy is left of came, and who sent them, as the index knows it."""
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        rows = connection.execute(
            "SELECT sha256, arrived_at, calling_ae FROM object o JOIN association USING (association_key)"
            " WHERE EXISTS (SELECT FROM copy c WHERE c.object_key = o.object_key AND c.state = 'good')"
        ).fetchall()
    return {bytes(row[0]): (row[1], row[2]) for row in rows}


def arrivals_in_receipts(data: Path, digests: set[bytes]) -> dict[bytes, tuple[datetime, str]]:
    """The same as the receipts know it, of those with these digests."""
    lines = [json.loads(line) for path in (data / "receipts").glob("*.jsonl") for line in path.read_text().splitlines()]
    stored = [
        (bytes.fromhex(each[0]), each[2], line["from"]["ae"]) for line in lines for each in line.get("stored", ())
    ]
    return {sha256: (datetime.fromisoformat(at), ae) for sha256, at, ae in stored if sha256 in digests}


def timeline_of(dev: Dev) -> int:
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
        pytest.param("old", "old", "new", marks=_LONG),
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
    names_before = {path.name for path in (dev.data / "tier1").rglob("*.dcm")}
    dev.start()
    notice = wait_for(lambda: (found := shown(dev)["reverted"]) and found["reconciled_at"] and found, "not noticed", 60)
    assert notice["is_state"] == (state == "old")
    assert objects_in_index(dev) == there
    assert timeline_of(dev) == (2 if state == "old" else 1)
    said = check_of(dev)
    assert said["severity"] == "warning", said
    assert "went back in time" in said["message"]
    assert "late" in dev.pacs("device", "list").stdout  # the journal on whichever disk is newer
    if state == "old":
        assert arrivals_in_index(dev) == arrivals_in_receipts(moments.new, there)
    # Nothing that had moved is made again where it was.
    assert not [path for path in (dev.data / "tier1").rglob("*.dcm") if path.name not in names_before]
    # Acknowledged, and started again: all is well, nothing is noticed twice.
    dev.pacs("lineage", "acknowledge")
    beaten(dev)
    dev.stop()
    dev.start()
    beaten(dev)
    assert shown(dev)["reverted"] is None
    assert check_of(dev)["severity"] == "ok"
    assert timeline_of(dev) == (2 if state == "old" else 1)


@_LONG  # of the rules alone: tests/unit/model/test_lineage.py
def test_a_power_cut_is_no_alarm(moments: Moments, new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(**_SETTINGS)
    copy_disks(moments.new, dev.data, lambda name: True)
    for _turn in range(2):
        dev.start()
        beaten(dev, 1)
        assert shown(dev)["reverted"] is None
        dev.kill_all()


def other_epoch(folder: Path, lineage_id: str, epoch: int) -> None:
    """What another node that has taken over leaves on a volume or in a repository."""
    (folder / "lineage.json").write_text(json.dumps({"lineage_id": lineage_id, "epoch": epoch, "at": "2026-11-22"}))


def test_a_node_that_meets_a_higher_epoch_stops_and_one_that_is_claimed_goes_on(
    moments: Moments, new_dev: Callable[..., Dev]
) -> None:
    dev = new_dev(**_SETTINGS)
    copy_disks(moments.new, dev.data, lambda name: True)
    state = json.loads((dev.data / "lineage" / "state.json").read_text())
    other_epoch(dev.data / "tier2", state["lineage_id"], 5)
    dev.start()
    assert "epoch 5" in shown(dev)["fenced"]
    assert json.loads(dev.pacs("lineage", "show", "--json").stdout) == shown(dev)
    said = check_of(dev)
    assert said["severity"] == "critical" and "takes no associations" in said["message"]
    with pytest.raises(urllib.error.HTTPError) as answered:
        urllib.request.urlopen(f"http://127.0.0.1:{dev.http_port}/healthz")
    assert answered.value.code == 503
    # From this machine an administrator may read what is here; nothing is taken, decided or removed.
    third = [RawObject.of(each) for each in ct_study(3, 1)]
    assert store(dev.dicom_port, third) == [0xA700]
    first = moments.sent["old"]
    offered = [(raw.sop_class_uid, raw.transfer_syntax_uid) for raw in first]
    assert len(get(dev.dicom_port, [study_uid_of(first[0])], offered)) == 3
    for words in (["device", "remove", "late"], ["reconcile", "run"], ["scrub", "run"], ["selftest"]):
        refused = dev.pacs(*words, check=False)
        assert refused.returncode in (4, 13) and "is fenced" in refused.stdout + refused.stderr, words
    before = json.loads((dev.data / "tier1" / "lineage.json").read_text())
    assert dev.pacs("lineage", "claim", check=False).returncode == 2
    dev.pacs("lineage", "claim", "--yes")
    wait_for(lambda: (shown(dev)["reverted"] or {}).get("reconciled_at"), "it is not put right", 60)
    assert shown(dev)["mark"]["epoch"] == 6 and shown(dev)["fenced"] is None
    wait_for(lambda: json.loads((dev.data / "tier2" / "lineage.json").read_text())["epoch"] == 6, "no mark")
    assert json.loads((dev.data / "tier1" / "lineage.json").read_text())["generation"] > before["generation"]
    assert wait_for(lambda: store(dev.dicom_port, third) == [0], "nothing is stored")
    # The log goes on on a new timeline from the next start on.
    assert check_of(dev)["severity"] == "critical" and "Restart" in check_of(dev)["hint"]
    dev.stop()
    dev.start()
    assert timeline_of(dev) == 2
    assert check_of(dev)["severity"] == "warning"


def test_who_calls_from_elsewhere_is_rejected_by_a_fenced_node(instance: Instance) -> None:
    """pacs dev has loopback only: so the decision itself."""
    LineageFiles(instance.settings.data).fence("another node has taken over", 7)
    refusals = Refusals(instance.database)
    negotiation = Negotiation(instance.database, instance.settings, refusals)
    admission = negotiation.admit(Caller("CT1", instance.settings.ae_title, "192.0.2.7"))
    assert admission.rejection == REJECTED_CONGESTION
    refusals.stop()
    (row,) = list_refusals(instance.database)
    assert "is fenced: another node has taken over" in row["reason"]


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=_LONG)])
def test_killed_while_it_is_put_right(moments: Moments, new_dev: Callable[..., Dev], kills: int) -> None:
    dev = new_dev(**_SETTINGS)
    copy_disks(moments.old, dev.data, lambda name: name not in _TIERS)
    copy_disks(moments.new, dev.data, lambda name: name in _TIERS)
    there = objects_on(dev.data)
    for number in range(kills):
        dev.start()
        wait_for(lambda: shown(dev)["reverted"], "not noticed")
        time.sleep(0.1 * number)  # wherever it is by then
        dev.kill_all()
    dev.start()
    wait_for(lambda: (shown(dev)["reverted"] or {}).get("reconciled_at"), "it is not put right", 60)
    assert objects_in_index(dev) == there
    assert objects_on(dev.data) == there
    assert timeline_of(dev) >= 2
    assert not list((dev.data / "tier1").glob("quarantine/*"))


@_LONG
def test_put_back_twice_to_the_same_moment(moments: Moments, new_dev: Callable[..., Dev]) -> None:
    """Each time the log goes on on a timeline that was never used."""
    dev = new_dev(**_SETTINGS)
    copy_disks(moments.new, dev.data, lambda name: name in _TIERS)
    sent: list[RawObject] = []
    for timeline in (2, 3):
        for part in dev.data.iterdir():
            if part.name not in _TIERS:
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        copy_disks(moments.old, dev.data, lambda name: name not in _TIERS)
        dev.start()
        wait_for(lambda: (shown(dev)["reverted"] or {}).get("reconciled_at"), "it is not put right", 60)
        assert timeline_of(dev) == timeline
        sent += [RawObject.of(each) for each in ct_study(40 + timeline, 1)]
        assert store(dev.dicom_port, sent[-1:]) == [0]
        beaten(dev)
        dev.kill_all()
    dev.start()
    assert objects_in_index(dev) == objects_on(dev.data)
    assert len(objects_on(dev.data)) == len(moments.sent["new"]) + len(sent)
