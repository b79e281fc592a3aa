"""The whole system disk is replaced in the hypervisor by a later version's: tried; if it fails, told what to attach.

Also the way back: data that a later version has used are left alone by an earlier one, which names the later.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.image.installation import Installation
from tests.image.later import BROKEN_VERSION, VERSION, WHY, later_disk
from tests.image.ova import Imported
from tests.image.screen import shows, wait_for_screen
from tests.image.upgrades import (
    TRIAL_LIMIT_S,
    failed_units,
    send_patiently,
    send_study,
    status,
    wait_for_end,
    wait_until_put_right,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(5400)]

_DOES_NOT_START = "THIS VERSION DOES NOT START. No images are taken."
# What only the database and the archive write to.
_THEIRS = "/srv/pacs/state/postgresql /srv/pacs/state/journal /srv/pacs/tier1 /srv/pacs/tier2"


def _replace(site: Installation, imported: Imported) -> Path:
    """Shut it down, put that image's system disk in, and power on. Return the disk that was there."""
    site.machine.shut_down()
    site.unplug_seed()
    before = site.swap_system_disk(imported)
    site.machine.power_on_to_init()
    site.machine.wait_for_ssh()
    return before


def _put_back(site: Installation, disk: Path) -> None:
    site.machine.shut_down()
    site.plug_in_system_disk(disk)
    site.machine.boot()


def _refused(site: Installation, *texts: str) -> None:
    """That nothing of the archive runs, and that the screen says all this."""
    for unit in ("postgresql@17-main.service", "pacs-receiver@1.service", "pacs-worker.service", "pacs-dicom.socket"):
        assert site.host().run("systemctl is-active %s", unit).stdout.strip() != "active", unit
    screen = wait_for_screen(site.host(), _DOES_NOT_START, *texts)
    assert [text for text in (_DOES_NOT_START, *texts) if not shows(screen, text)] == [], screen


def test_a_system_disk_that_fails_puts_the_data_back_and_names_the_one_to_attach(
    alone: Installation, imported: Imported, tmp_path: Path
) -> None:
    site = alone
    send_study(site, tmp_path / "before", 61)
    version, began = status(site)["running"]["version"], time.monotonic()
    old = _replace(site, later_disk(imported, tmp_path / "disk", is_broken=True))
    on_trial = site.machine.boot_id
    send_patiently(site, tmp_path / "trial", 62)
    print(f"on trial, and taking images, after {time.monotonic() - began:.0f} s")
    site.machine.wait_for_restart(on_trial, 2 * TRIAL_LIMIT_S)
    found = wait_for_end(site, BROKEN_VERSION)
    assert found["record"]["outcome"] == "rolled back", found
    assert WHY in found["record"]["why"], found
    print(f"put back after {time.monotonic() - began:.0f} s")
    _refused(site, f"Version {BROKEN_VERSION} did not pass", f"Attach the system disk of version {version}")
    _put_back(site, old)
    print(f"the old one goes on after {time.monotonic() - began:.0f} s")
    wait_until_put_right(site)
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
    assert failed_units(site) == ""


def test_data_that_a_later_system_disk_has_used_are_left_alone_by_an_earlier(
    alone: Installation, imported: Imported, tmp_path: Path
) -> None:
    site = alone
    send_study(site, tmp_path / "before", 63)
    began = time.monotonic()
    earlier = _replace(site, later_disk(imported, tmp_path / "disk", is_broken=False))
    found = wait_for_end(site, VERSION)
    assert found["record"]["outcome"] == "passed", found
    assert found["running"]["version"] == VERSION, found
    print(f"the later one has passed after {time.monotonic() - began:.0f} s")
    send_study(site, tmp_path / "after", 64)
    later = site.machine.hardware.system_disk

    _put_back(site, earlier)
    _refused(site, f"The data were last used by version {VERSION}", f"Use the image of version {VERSION}")
    booted = "$(awk '/^btime/ { print $2 }' /proc/stat)"
    assert site.machine.ssh(f"sudo find {_THEIRS} -newermt @{booted}").stdout == ""

    _put_back(site, later)
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
    assert failed_units(site) == ""
