"""Disaster recovery as docs/operate/restore.md tells it: what one appliance backed up is restored onto another one."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from packer.accelerator import Accelerator
from tests.image.exchange import compare, make_study, send
from tests.image.hardware import Firmware
from tests.image.installation import Installation, install, remove
from tests.image.ova import Imported

_REPOSITORY = "/srv/pacs/backup/repository"


@pytest.fixture
def another(imported: Imported, folder: Path, accelerator: Accelerator) -> Iterator[Installation]:
    """Another import of the OVA, on other virtual hardware, not yet booted."""
    made = install(imported, folder / "another", Firmware.UEFI, accelerator)
    yield made
    remove(made)


def _fetch_repository(site: Installation, target: Path) -> None:
    with target.open("wb") as file:
        subprocess.run(
            ["ssh", "-F", str(site.machine.ssh_config), "appliance", "sudo tar -C /srv/pacs/backup -cf - repository"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            check=True,
        )


def _host_keys(site: Installation) -> str:
    return site.machine.ssh("sudo sh -c 'cat /srv/pacs/state/identity/ssh/*.pub'").stdout


def _key_of(sheet: str) -> str:
    """The key as it stands on a printed recovery sheet."""
    groups = re.findall(r"\b[0-9A-HJKMNP-TV-Z]{5}\b(?=-|$)", sheet, re.MULTILINE)
    assert len(groups) == 9, sheet
    return "-".join(groups)


def _newest_point(site: Installation) -> dict[str, Any]:
    points = json.loads(site.machine.ssh("sudo pacs backup points --json").stdout)["outside"]
    return dict(points[-1]) if points else {}


def _what_it_says(site: Installation) -> str:
    """What the services and the checks say, for whoever looks for what went wrong."""
    journal = "sudo journalctl --boot --no-pager --output cat -u 'pacs-receiver@*' -u pacs-worker | tail -n 40"
    places = "sudo ls -lan /srv/pacs /srv/pacs/backup /srv/pacs/backup/repository /srv/pacs/state/config"
    return site.machine.ssh(f"sudo pacs check; sudo pacs volume list; {journal}; {places}", check=False).stdout


def _what_is_known(site: Installation) -> dict[str, Any]:
    """Studies, devices and settings, as a person sees them."""
    settings = "sudo cat /srv/pacs/state/config/pacs.toml"
    studies = json.loads(site.machine.ssh("sudo pacs study list --json").stdout)
    return {
        "studies": [{key: value for key, value in each.items() if key != "tiers"} for each in studies],
        "devices": json.loads(site.machine.ssh("sudo pacs device list --json").stdout),
        "settings": site.machine.ssh(settings, check=False).stdout,
    }


def _is_whole(site: Installation) -> bool:
    return json.loads(site.machine.ssh("sudo pacs restore status --json").stdout)["finished_at"] is not None


def _wait_for(look: Callable[[], bool], otherwise: str, limit_s: float = 900) -> None:
    ends = time.monotonic() + limit_s
    while not look():
        assert time.monotonic() < ends, otherwise
        time.sleep(10)


@pytest.mark.timeout(1800)
def test_a_backup_is_restored_onto_another_appliance(site: Installation, another: Installation, tmp_path: Path) -> None:
    if site.refuses_us():
        site.add_device()
    send(site.dicom_port, make_study(tmp_path, 31, 5, 128), site.account)
    site.machine.ssh(f"sudo install -o pacs -g pacs -m 750 -d {_REPOSITORY}")
    site.machine.ssh(f"sudo pacs backup repository add outside --place {_REPOSITORY} --on-system-disk")
    key = _key_of(site.machine.ssh("sudo pacs backup keys show").stdout)
    # The worker sees that a backup is due, makes it, ships log and objects, and makes a point: by itself.
    newest, last = partial(_newest_point, site), "SELECT max(object_key) FROM object"
    stored = int(site.machine.ssh(f"cd /; sudo -u postgres psql -At pacs -c '{last}'").stdout)
    _wait_for(lambda: newest().get("newest_object_key", 0) >= stored, "there is no recovery point with all objects")
    _fetch_repository(site, tmp_path / "repository.tar")
    keys, known = _host_keys(site), _what_is_known(site)
    lost_s = time.time() - datetime.fromisoformat(newest()["at"]).timestamp()
    site.machine.shut_down()

    another.running()
    assert _host_keys(another) != keys
    another.machine.copy_in(tmp_path / "repository.tar", "/tmp/repository.tar")
    another.machine.ssh("sudo mkdir -p /srv/pacs/backup && sudo tar -C /srv/pacs/backup -xpf /tmp/repository.tar")
    another.machine.ssh(f"umask 077; echo {key[:-1]}{'0' if key[-1] != '0' else '1'} >wrong.txt; echo {key} >sheet.txt")
    restore = f"sudo pacs restore --repository {_REPOSITORY} --yes --the-old-one-is-gone --sheet"
    assert "mistyped" in another.machine.ssh(f"{restore} wrong.txt 2>&1 || true").stdout
    began = time.monotonic()
    restored = another.machine.ssh(f"{restore} sheet.txt", timeout_s=1200).stdout
    print(f"{restored}\nsearchable after {time.monotonic() - began:.0f} s")
    _wait_for(lambda: _is_whole(another), "it does not become whole")
    print(f"whole after {time.monotonic() - began:.0f} s; what came in the last {lost_s:.0f} s would have been lost")
    assert _what_is_known(another) == known
    another.machine.shut_down()
    another.machine.trusts_any_host_key = True
    another.running()

    comparison = compare(another.dicom_port, site.account)  # the device is known there now, as it was here
    assert comparison.is_clean, f"{comparison}\n{_what_it_says(another)}"
    assert _host_keys(another) == keys
    host = another.host()
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    severe = [each for each in another.complaints() if each.startswith("critical")]
    assert severe == []
