"""Encrypted volumes on the booted appliance: opened by its TPM, by the recovery sheet on other hardware, and grown.

The one place where dm-crypt and a TPM are there for certain. A story in one machine, as each boot costs minutes.
"""

from __future__ import annotations

import json
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from packer.accelerator import Accelerator
from pacs.backup.master_key import MasterKey
from tests.image.exchange import make_study, send
from tests.image.hardware import Firmware
from tests.image.installation import Installation, install, remove
from tests.image.ova import Imported
from tests.image.seed import make_seed
from tests.image.tpm import Tpm

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]
_LIMIT_S = 900.0


@pytest.fixture
def encrypted(imported: Imported, folder: Path, accelerator: Accelerator) -> Iterator[Installation]:
    """An import of the OVA whose seed asks for encryption; off."""
    installation = install(imported, folder / "encrypted", Firmware.BIOS, accelerator)
    ask_for_encryption(installation)
    yield installation
    remove(installation)


def ask_for_encryption(installation: Installation) -> None:
    """Plug in a seed that says so."""
    machine = installation.machine
    folder = machine.folder / "seed"
    folder.mkdir()
    key = machine.key.with_suffix(".pub").read_text("utf-8").strip()
    seed = make_seed(folder, key, "pacs-encrypted", settings={"encrypt_volumes": "tpm"})
    machine.hardware = replace(machine.hardware, seed=seed)


def plug_in(installation: Installation, tpm: Tpm) -> None:
    """Give the machine this TPM, and power."""
    tpm.start()
    machine = installation.machine
    machine.hardware = replace(machine.hardware, more=tuple(tpm.arguments))
    machine.boot(_LIMIT_S)


def test_encrypted_volumes(encrypted: Installation, tmp_path: Path) -> None:
    """From the claim to other hardware, with an image that comes back at each step."""
    machine = encrypted.machine
    first, second = Tpm(machine.folder / "tpm1"), Tpm(machine.folder / "tpm2")
    try:
        plug_in(encrypted, first)
        sheet = _claimed(encrypted)
        encrypted.add_device()
        send(encrypted.dicom_port, make_study(tmp_path, 1, 3, 64), encrypted.account)
        machine.shut_down(_LIMIT_S)
        _is_nowhere_in_the_clear(encrypted)

        _enlarge(encrypted.data_disks[-1])
        plug_in(encrypted, first)
        assert encrypted.compare().is_clean
        _fills_its_disk(encrypted)
        machine.shut_down(_LIMIT_S)

        encrypted.swap_system_disk()
        machine.trusts_any_host_key = True  # the appliance's own is on the locked volume
        plug_in(encrypted, second)
        _waits_for_the_sheet(encrypted)
        _is_not_opened_by_another_sheet(encrypted)
        _unlock(encrypted, sheet)
        assert encrypted.compare().is_clean
        machine.shut_down(_LIMIT_S)

        plug_in(encrypted, second)
        assert encrypted.compare().is_clean, "the new TPM does not open it by itself"
    finally:
        machine.cut_power()
        first.stop()
        second.stop()


def _claimed(site: Installation) -> str:
    said = site.machine.ssh("sudo pacs machine locks").stdout
    assert said.count("open  opened by: recovery sheet") == len(site.data_disks), said
    assert said.count("TPM") == 1, said
    assert "LOCKED" not in said
    return site.machine.ssh("sudo cat /srv/pacs/state/config/keys/sheet.key").stdout.strip()


def _is_nowhere_in_the_clear(site: Installation) -> None:
    for disk in site.data_disks:
        with disk.open("rb") as file:
            content = file.read(64 << 20)
        assert content.startswith(b"LUKS\xba\xbe")
        assert b"DICM" not in content
        assert b"volume_id" not in content


def _enlarge(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.truncate(disk.stat().st_size + (1 << 30))


def _fills_its_disk(site: Installation) -> None:
    size = int(site.machine.ssh("df --block-size=1 --output=size /srv/pacs/tier2 | tail -1").stdout)
    assert size > (site.data_disks[-1].stat().st_size) * 0.9


def _waits_for_the_sheet(site: Installation) -> None:
    """It is up, says so on its display and to whoever watches, and has touched nothing."""
    said = json.loads(site.machine.ssh("cat /run/pacs-machine/storage.json").stdout)
    assert not said["ready"]
    assert any("pacs machine unlock" in problem for problem in said["problems"]), said
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{site.machine.ports[80]}/healthz", timeout=60)
    assert refused.value.code == 503
    assert "encrypted" in refused.value.read().decode()


def _is_not_opened_by_another_sheet(site: Installation) -> None:
    other = shlex.quote(MasterKey.make().text)
    refused = site.machine.ssh(f"echo {other} | sudo pacs machine unlock", check=False)
    assert refused.returncode != 0
    assert "nothing was touched" in refused.stdout + refused.stderr
    assert "LOCKED" in site.machine.ssh("sudo pacs machine locks").stdout


def _unlock(site: Installation, sheet: str) -> None:
    said = site.machine.ssh(f"echo {shlex.quote(sheet)} | sudo pacs machine unlock", timeout_s=_LIMIT_S).stdout
    assert "Open now" in said
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        if site.machine.ssh("systemctl is-active nginx pacs-receiver@1", check=False).stdout.split() == ["active"] * 2:
            return
        time.sleep(5)
    raise site.machine.failure("the services did not start after the volumes were unlocked")
