"""Disaster recovery as docs/operate/backup.md tells it: what one appliance backed up is restored onto another one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


def test_a_backup_is_restored_onto_another_appliance(site: Installation, another: Installation, tmp_path: Path) -> None:
    if site.refuses_us():
        site.add_device()
    send(site.dicom_port, make_study(tmp_path, 31, 5, 128), site.account)
    site.machine.ssh(f"sudo install -o pacs -g pacs -m 750 -d {_REPOSITORY}")
    site.machine.ssh(f"echo 'backup_repository = \"{_REPOSITORY}\"' | sudo tee -a /srv/pacs/state/config/pacs.toml")
    site.machine.ssh("sudo systemctl start pacs-backup.service", timeout_s=600)
    (manifest,) = json.loads(site.machine.ssh("sudo pacs backup list --json").stdout).values()
    assert manifest["objects"] >= len(site.account.acknowledged)
    _fetch_repository(site, tmp_path / "repository.tar")
    keys = _host_keys(site)
    site.machine.shut_down()

    another.running()
    assert _host_keys(another) != keys
    another.machine.copy_in(tmp_path / "repository.tar", "/tmp/repository.tar")
    another.machine.ssh("sudo mkdir -p /srv/pacs/backup && sudo tar -C /srv/pacs/backup -xpf /tmp/repository.tar")
    another.machine.ssh("sudo systemctl stop 'pacs-dicom*.socket' 'pacs-receiver@*' pacs-worker pacs-web")
    restored = another.machine.ssh(f"sudo pacs restore --repository {_REPOSITORY}", timeout_s=900).stdout
    assert f"Restored {manifest['objects']} objects" in restored
    another.machine.shut_down()
    another.machine.trusts_any_host_key = True
    another.running()

    comparison = compare(another.dicom_port, site.account)  # the device is known there now, as it was here
    assert comparison.is_clean, str(comparison)
    assert _host_keys(another) == keys
    host = another.host()
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert another.complaints() == []
