"""What the appliance is for: what it acknowledged is there after a power cut, and after its system disk is replaced.

A study goes in through the forwarded DICOM port as the bytes it is, and every byte that was acknowledged is compared
with what C-GET gives back. `power.py` says what a power cut is here.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.image.exchange import Instance, make_study, send, sending
from tests.image.installation import Installation
from tests.image.ova import is_blank
from tests.image.screen import wait_for_screen

_SIZES = (512, 256, 64)  # rows and columns, a study and an association each
_LOAD_LIMIT_S = 180.0
_KILLS = int(os.environ.get("PACS_CUTS", "20"))
_LIBEATMYDATA = Path("/usr/lib/x86_64-linux-gnu/libeatmydata.so")


def _batches(folder: Path, seed: int, instances: int) -> list[list[Instance]]:
    """A study for each association: half a megabyte an instance, as CTs have, down to a few kilobytes."""
    return [make_study(folder / f"{seed}-{size}", seed * 1000 + size, instances, size) for size in _SIZES]


def _cut_under_load(site: Installation, folder: Path, seed: int, enough: int) -> set[str]:
    """Send on several associations at once and take the power away while they are at it. Return the studies."""
    batches = _batches(folder, seed, instances=enough + 20)
    with sending(site.dicom_port, batches, site.account, enough, _LOAD_LIMIT_S):
        site.machine.cut_power()
    return {instance.study_instance_uid for batch in batches for instance in batch}


@pytest.fixture
def known_site(site: Installation) -> Installation:
    """The site with our application entity as a known device."""
    if site.refuses_us():
        site.add_device()
    return site


def test_a_study_comes_back_bit_for_bit(known_site: Installation, tmp_path: Path) -> None:
    study = make_study(tmp_path, 1, 20, 256)
    before = len(known_site.account.acknowledged)
    send(known_site.dicom_port, study, known_site.account)
    assert len(known_site.account.acknowledged) - before == len(study)
    assert known_site.compare().is_clean


def test_what_was_acknowledged_outlives_a_power_cut(known_site: Installation, tmp_path: Path) -> None:
    _cut_under_load(known_site, tmp_path, seed=2, enough=60)
    seconds = known_site.boot_to_dicom()
    print(f"from power on to an answered C-ECHO: {seconds:.0f} s, {known_site.machine.hardware.accelerator.why}")
    comparison = known_site.compare()
    assert comparison.is_clean, str(comparison)
    known_site.machine.wait_for_ssh()
    known_site.machine.wait_for_end_of_boot()
    said = known_site.selftest()  # on a second boot, which is the first to find what the first boot made
    assert "2762 (TLS)" in said, said
    host = known_site.host()
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert known_site.complaints() == []


def test_a_fresh_system_disk_takes_the_old_data_disks(known_site: Installation, tmp_path: Path) -> None:
    """Redeploy: another system disk, no seed, one blank disk more. Same host key, same administrator, same images."""
    site = known_site
    send(site.dicom_port, make_study(tmp_path, 3, 5, 128), site.account)
    site.machine.shut_down()
    site.swap_system_disk()
    site.unplug_seed()
    blank = site.plug_in_blank_disk(size_bytes=4 << 30)
    site.running()  # would fail on another host key
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
    host = site.host()
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert site.complaints() == []
    screen = wait_for_screen(host, "Blank disks that are not used")
    assert "Blank disks that are not used" in screen, screen
    assert is_blank(blank), "a blank disk was only to be offered, and something was written to it"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_without_fsync_the_power_cut_is_noticed(known_site: Installation, tmp_path: Path) -> None:
    """The counter-proof: the same cut, the receiver's fsync made a no-op, and the comparison must find what is lost."""
    site = known_site
    site.machine.copy_in(_LIBEATMYDATA, "/tmp/libeatmydata.so")
    drop_in = "/run/systemd/system/pacs-receiver@.service.d"
    library = "/srv/pacs/libeatmydata.so"
    site.machine.ssh(
        f"sudo install -m 0755 /tmp/libeatmydata.so {library} && sudo mkdir -p {drop_in} && "
        f"printf '[Service]\\nEnvironment=LD_PRELOAD={library}\\n' | sudo tee {drop_in}/no-fsync.conf >/dev/null && "
        "sudo systemctl daemon-reload && sudo systemctl restart pacs-receiver@1.service pacs-receiver@2.service"
    )
    whole = dict(site.account.acknowledged)
    _cut_under_load(site, tmp_path, seed=9, enough=100)
    site.running()
    comparison = site.compare()
    lost = set(comparison.missing) | set(comparison.different)
    print(f"without fsync: of {len(site.account.acknowledged)} acknowledged, {comparison}")
    assert lost, "nothing was lost without fsync: this test could not see a missing fsync either"
    assert not lost & whole.keys(), "what was acknowledged with fsync must still be there"
    site.forget(lost)


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
def test_twenty_power_cuts_lose_nothing(known_site: Installation, tmp_path: Path) -> None:
    chance = random.Random(20)
    for kill in range(_KILLS):
        studies = _cut_under_load(known_site, tmp_path, seed=100 + kill, enough=chance.randrange(20, 200))
        seconds = known_site.boot_to_dicom()
        # Each time what was under way; at the end everything, so also what an earlier cut had left whole.
        comparison = known_site.compare(studies if kill + 1 < _KILLS else None)
        print(f"power cut {kill + 1}: took associations again after {seconds:.0f} s; {comparison}")
        assert comparison.is_clean, f"after {kill + 1} power cuts: {comparison}"
