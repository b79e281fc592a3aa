"""An upgrade into the other root slot as docs/operate/upgrade.md tells it, and one that comes back by itself."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packer.accelerator import Accelerator
from packer.upgrade import ReleaseKey, pack
from pacs.machine.upgrade_file import open_file
from pacs.model.upgrade import System
from tests.image.exchange import ExchangeError, make_study, send
from tests.image.hardware import Firmware
from tests.image.installation import Installation, install, remove
from tests.image.ova import Imported

_FILE = "/var/tmp/pacs.upgrade"
_TRIAL_LIMIT_S = 900.0
_PACKAGE = "/opt/pacs/venv/lib/python3.13/site-packages/pacs"


@pytest.fixture(scope="module")
def upgrade(ova: Path) -> Path:
    """The upgrade file of the same build."""
    path = ova.with_suffix(".upgrade")
    assert path.exists(), f"{path.name} is not beside the OVA"
    return path


def _status(site: Installation) -> dict[str, Any]:
    return dict(json.loads(site.machine.ssh("sudo pacs upgrade status --json").stdout))


def _refusal(site: Installation, file: str, *words: str) -> str:
    answer = site.machine.ssh(f"sudo pacs upgrade apply {file} {' '.join(words)}", check=False, timeout_s=300)
    assert answer.returncode != 0, answer.stdout
    return answer.stderr


def _apply(site: Installation, *words: str) -> None:
    answer = site.machine.ssh(f"sudo pacs upgrade apply {_FILE} {' '.join(words)}", check=False, timeout_s=1200)
    # 255 is ssh's own: the restart may end the connection before the answer is through.
    assert answer.returncode in (0, 255), answer.stderr
    assert "The machine restarts now" in answer.stdout, answer.stderr


def _end(site: Installation) -> dict[str, Any]:
    """Wait until the upgrade has ended, over restarts."""
    deadline = time.monotonic() + _TRIAL_LIMIT_S
    while True:
        answer = site.machine.ssh("sudo pacs upgrade status --json", check=False)
        if answer.returncode == 0 and (found := json.loads(answer.stdout))["record"]["outcome"]:
            return dict(found)
        if answer.returncode == 255:  # ssh's own: it restarts
            site.machine.wait_for_ssh()
        if time.monotonic() > deadline:
            raise site.machine.failure(f"the upgrade does not end: {answer.stdout}{answer.stderr}")
        time.sleep(5)


def _send(site: Installation, folder: Path, seed: int) -> None:
    if site.refuses_us():
        site.add_device()
    before = len(site.account.acknowledged)
    send(site.dicom_port, make_study(folder, seed, 5, 128), site.account)
    assert len(site.account.acknowledged) == before + 5


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_an_upgrade_goes_into_the_other_slot_and_stays(uefi_site: Installation, upgrade: Path, tmp_path: Path) -> None:
    site, began = uefi_site, time.monotonic()
    _send(site, tmp_path / "before", 41)
    assert _status(site)["slot"] == "a"
    site.machine.copy_in(upgrade, _FILE)
    print(f"copied after {time.monotonic() - began:.0f} s")
    site.machine.ssh(f"head -c 100000000 {_FILE} >/var/tmp/cut.upgrade")
    assert "is cut short" in _refusal(site, "/var/tmp/cut.upgrade", "--again")
    assert "give --again" in _refusal(site, _FILE)
    before = site.machine.boot_id
    _apply(site, "--again")
    print(f"written after {time.monotonic() - began:.0f} s")
    site.machine.wait_for_restart(before, 2 * _TRIAL_LIMIT_S)
    found = _end(site)
    print(f"passed after {time.monotonic() - began:.0f} s")
    record = found["record"]
    assert (record["outcome"], found["slot"]) == ("passed", "b"), record["why"]
    assert "slot=b" in site.machine.ssh("sudo cat /boot/efi/pacs/grubenv").stdout
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
    assert site.host().check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert site.complaints() == []


@pytest.fixture
def another(imported: Imported, folder: Path, accelerator: Accelerator) -> Iterator[Installation]:
    """Another import of the OVA, not yet booted."""
    made = install(imported, folder / "upgraded", Firmware.BIOS, accelerator)
    yield made
    remove(made)


def _broken(upgrade: Path, folder: Path) -> tuple[Path, Path]:
    """An upgrade file whose system changes the schema and whose selftest fails; and the key that it is signed with."""
    opened = open_file(upgrade, {"release": bytes.fromhex(upgrade.with_suffix(".pub").read_text().strip())})
    root = folder / "root.raw"
    with root.open("wb") as image:
        image.truncate(opened.manifest.size_bytes)
        for number, content in opened.pieces():
            image.seek(number * opened.manifest.piece_bytes)
            image.write(content)
    (folder / "later.sql").write_text("ALTER TABLE object ADD COLUMN later integer;\n")
    (folder / "selftest.py").write_text("def selftest() -> None:\n    raise SystemExit('this version is broken')\n")
    commands = [
        f"rm {_PACKAGE}/cli/selftest.py", f"rm {_PACKAGE}/cli/__pycache__/selftest.cpython-313.pyc",
        f"write {folder / 'selftest.py'} {_PACKAGE}/cli/selftest.py",
        f"write {folder / 'later.sql'} {_PACKAGE}/index/migrations/9999_later.sql",
    ]  # fmt: skip
    (folder / "commands").write_text("\n".join(commands) + "\n")
    subprocess.run(["debugfs", "-w", "-f", folder / "commands", root], check=True, capture_output=True)
    key = ReleaseKey(folder / "key", b"3" * 32)
    (folder / "key.pub").write_text(key.public + "\n")
    system = System("99.0.0", 9999, opened.manifest.postgresql)
    pack(root, folder / "broken.upgrade", system, 0, key)
    root.unlink()
    return folder / "broken.upgrade", folder / "key.pub"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_upgrade_that_fails_comes_back_and_keeps_what_was_stored(
    another: Installation, upgrade: Path, tmp_path: Path
) -> None:
    site = another
    file, key = _broken(upgrade, tmp_path)
    site.running()
    _send(site, tmp_path / "before", 51)
    site.machine.copy_in(file, _FILE)
    site.machine.copy_in(key, "/var/tmp/key.pub")
    assert "not signed by a key" in _refusal(site, _FILE)
    site.machine.ssh("sudo pacs upgrade trust /var/tmp/key.pub --yes")
    before = site.machine.boot_id
    _apply(site)
    on_trial = site.machine.wait_for_restart(before, 2 * _TRIAL_LIMIT_S)
    status = _status(site)
    assert (status["slot"], status["record"]["outcome"]) == ("b", ""), status
    _send_patiently(site, tmp_path / "trial", 52)
    site.machine.wait_for_restart(on_trial, 2 * _TRIAL_LIMIT_S)
    found = _end(site)
    assert (found["record"]["outcome"], found["slot"]) == ("rolled back", "a"), found
    assert "broken" in found["record"]["why"], found
    _wait_until_put_right(site)
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
    assert site.host().check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    told = [line for line in site.complaints() if "upgrade" in line]
    assert told
    assert "was rolled back" in told[0]


def _send_patiently(site: Installation, folder: Path, seed: int) -> None:
    """As soon as the system on trial takes images."""
    deadline = time.monotonic() + 300
    while True:
        try:
            return _send(site, folder, seed)
        except (ExchangeError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def _wait_until_put_right(site: Installation) -> None:
    deadline = time.monotonic() + 300
    while True:
        told = json.loads(site.machine.ssh("sudo pacs lineage show --json").stdout)["reverted"]
        if told and told["reconciled_at"]:
            return
        assert time.monotonic() < deadline, told
        time.sleep(5)
