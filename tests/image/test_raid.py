"""A RAID 6 of six disks that holds all that the appliance has: two are pulled under load, and nothing is lost.

As on bare metal: no blank disk is claimed by itself, the RAID is made and given to the appliance by command.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.image.exchange import make_study, send, sending
from tests.image.hardware import Firmware
from tests.image.installation import Installation
from tests.image.seed import make_seed

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

_GIB = 1 << 30
_SIZES = (128, 96, 64)
_REBUILD_LIMIT_S = 1200.0


def _blank(folder: Path, serial: str) -> Path:
    disk = folder / f"{serial}.raw"
    with disk.open("wb") as file:
        file.truncate(_GIB)
    return disk


@pytest.fixture(scope="module")
def metal(another: Installation, installations: dict[Firmware, Installation]) -> Installation:
    """A machine with six disks in bays and none else, where nothing is claimed by itself; SSH answers."""
    for other in installations.values():
        other.machine.shut_down()
    machine = another.machine
    bays = tuple((f"BAY{number}", _blank(machine.folder, f"BAY{number}")) for number in range(1, 7))
    shutil.rmtree(machine.folder / "cidata")
    key = machine.key.with_suffix(".pub").read_text("utf-8").strip()
    seed = make_seed(machine.folder, key, "pacs-raid", "PACS_MACHINE_KEEP_BLANK=1\n")
    machine.hardware = replace(machine.hardware, data_disks=(), in_bays=bays, seed=seed)
    machine.trusts_any_host_key = True
    machine.boot()
    return another


def _pacs(site: Installation, words: str, ends: int = 0) -> str:
    answer = site.machine.ssh(f"sudo pacs {words}", check=False, timeout_s=300)
    if answer.returncode != ends:
        raise site.machine.failure(f"pacs {words}: {answer.returncode} {answer.stdout}{answer.stderr}")
    return answer.stdout + answer.stderr


def _status(site: Installation) -> dict[str, Any]:
    (found,) = json.loads(_pacs(site, "raid status --json"))
    return dict(found)


def _wait(site: Installation, what: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + _REBUILD_LIMIT_S
    while not is_so(found := _status(site)):
        if time.monotonic() > deadline:
            raise site.machine.failure(f"not {what} in {_REBUILD_LIMIT_S:.0f} s: {found}")
        time.sleep(5)
    print(f"{what}: {time.monotonic() - deadline + _REBUILD_LIMIT_S:.0f} s")
    return found


def _is_whole(found: dict[str, Any]) -> bool:
    return found["missing"] == 0 and found["doing"] == "idle"


def _device_of(site: Installation, serial: str) -> str:
    said = site.machine.ssh("lsblk --json --nodeps --output PATH,SERIAL").stdout
    deadline = time.monotonic() + 60
    while not (paths := [str(e["path"]) for e in json.loads(said)["blockdevices"] if e["serial"] == serial]):
        if time.monotonic() > deadline:
            raise site.machine.failure(f"no disk {serial}: {said}")
        time.sleep(1)
        said = site.machine.ssh("lsblk --json --nodeps --output PATH,SERIAL").stdout
    return paths[0]


def _restart(site: Installation) -> None:
    before = site.machine.boot_id
    site.machine.ssh("sudo systemctl reboot", check=False)
    site.machine.wait_for_restart(before)
    site.machine._wait_for_end_of_boot()


def test_two_disks_are_pulled_under_load_and_nothing_is_lost(metal: Installation, tmp_path: Path) -> None:
    machine = metal.machine
    assert "none is claimed by itself" in machine.ssh("sudo cat /run/pacs-machine/storage.json").stdout
    disks = " ".join(_device_of(metal, f"BAY{number}") for number in range(1, 7))
    assert "needs 4 disks" in _pacs(metal, f"raid create archive --level 6 {' '.join(disks.split()[:3])}", ends=2)
    _pacs(metal, f"raid create archive --level 6 {disks}")
    assert "not blank" in _pacs(metal, f"raid create other --level 6 {disks}", ends=2)
    _pacs(metal, "machine claim /dev/md/archive")
    _restart(metal)
    assert machine.ssh("findmnt --noheadings --output SOURCE /srv/pacs/state").stdout.startswith("/dev/md")
    metal.add_device()
    _wait(metal, "made equal", _is_whole)
    assert "raid" not in " ".join(metal.complaints())

    batches = [make_study(tmp_path / str(size), size, 60, size) for size in _SIZES]
    with sending(metal.dicom_port, batches, metal.account, enough=20, limit_s=300):
        machine.pull("BAY2")
        machine.pull("BAY5")
    found = _wait(metal, "noticed", lambda found: found["missing"] == 2)
    assert len(metal.account.acknowledged) == len(metal.account.sent) == 180, "no image was refused for it"
    shown = _pacs(metal, "raid status")
    assert "2 MISSING, 0 more may fail" in shown
    assert "last there: serial number BAY2" in shown and "last there: serial number BAY5" in shown
    assert "(serial number BAY2, BAY5); the next one that fails loses data" in " ".join(metal.complaints())
    assert "DeviceDisappeared" not in (said := machine.ssh("sudo journalctl -b -t pacs-raid -o cat").stdout)
    assert "Fail" in said, "mdadm's monitor told of it"

    _restart(metal)  # four of six: it comes up by itself
    assert _status(metal)["missing"] == 2
    send(metal.dicom_port, make_study(tmp_path / "later", 7, 10, 64), metal.account)
    assert metal.compare().is_clean

    for serial in ("BAY7", "BAY8"):
        machine.plug_in(serial, _blank(machine.folder, serial))
        assert "rebuilt onto now" in _pacs(metal, f"raid add archive {_device_of(metal, serial)}")
    found = _wait(metal, "rebuilt", _is_whole)
    assert {place["serial"] for place in found["places"].values()} == {f"BAY{number}" for number in (1, 3, 4, 6, 7, 8)}
    machine.ssh("sudo sync; echo 3 | sudo tee /proc/sys/vm/drop_caches")
    comparison = metal.compare()
    assert comparison.compared == 190 and comparison.is_clean, str(comparison)
    _pacs(metal, "raid compare archive")
    assert _wait(metal, "compared", _is_whole)["mismatches"] == 0
    assert "raid" not in " ".join(metal.complaints())


def test_a_disk_that_still_works_is_copied_onto_a_new_one(metal: Installation) -> None:
    old = _device_of(metal, "BAY1")
    metal.machine.plug_in("BAY9", _blank(metal.machine.folder, "BAY9"))
    _pacs(metal, f"raid replace archive {old} {_device_of(metal, 'BAY9')}")
    _wait(metal, "copied", lambda found: _is_whole(found) and "BAY9" in str(found["places"]))
    _pacs(metal, f"raid remove archive {old}")
    metal.machine.pull("BAY1")
    assert _status(metal)["missing"] == 0
    comparison = metal.compare()
    assert comparison.is_clean, str(comparison)
