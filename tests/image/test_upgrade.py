"""An upgrade into the other root slot as docs/operate/upgrade.md tells it, and one that comes back by itself."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.image.installation import Installation
from tests.image.later import BROKEN_VERSION, WHY, broken_upgrade
from tests.image.playing import inventory, playing
from tests.image.upgrades import (
    TRIAL_LIMIT_S,
    failed_units,
    send_patiently,
    send_study,
    status,
    wait_for_end,
    wait_until_put_right,
)

_FILE = "/var/tmp/pacs.upgrade"
_WITH_UPTIME = 'while read -r line; do echo "$(cut -d. -f1 /proc/uptime) s: $line"; done'


@pytest.fixture(scope="module")
def upgrade(ova: Path) -> Path:
    """The upgrade file of the same build."""
    path = ova.with_suffix(".upgrade")
    assert path.exists(), f"{path.name} is not beside the OVA"
    return path


def _refusal(site: Installation, file: str, *words: str) -> str:
    answer = site.machine.ssh(f"sudo pacs upgrade apply {file} {' '.join(words)}", check=False, timeout_s=300)
    assert answer.returncode != 0, answer.stdout
    return answer.stderr


def _apply(site: Installation, *words: str) -> None:
    command = f"set -o pipefail; sudo pacs upgrade apply {_FILE} {' '.join(words)} 2>&1 | {_WITH_UPTIME}"
    answer = site.machine.ssh(command, check=False, timeout_s=3600)
    print(answer.stdout)
    # 255 is ssh's own: the restart may end the connection before the answer is through.
    assert answer.returncode in (0, 255), answer.stdout
    assert "The machine restarts now" in answer.stdout


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_an_upgrade_goes_into_the_other_slot_and_stays(uefi_site: Installation, upgrade: Path, tmp_path: Path) -> None:
    site, began = uefi_site, time.monotonic()
    send_study(site, tmp_path / "before", 41)
    found = status(site)
    assert found["slot"] == "a"
    site.machine.copy_in(upgrade, _FILE)
    print(f"copied after {time.monotonic() - began:.0f} s")
    site.machine.ssh(f"head -c 100000000 {_FILE} >/var/tmp/cut.upgrade")
    assert "is cut short" in _refusal(site, "/var/tmp/cut.upgrade", "--again")
    assert "give --again" in _refusal(site, _FILE)
    before = site.machine.boot_id
    _apply(site, "--again")
    print(f"written after {time.monotonic() - began:.0f} s")
    site.machine.wait_for_restart(before, 2 * TRIAL_LIMIT_S)
    found = wait_for_end(site, found["running"]["version"])
    print(f"passed after {time.monotonic() - began:.0f} s")
    record = found["record"]
    assert (record["outcome"], found["slot"]) == ("passed", "b"), record["why"]
    assert "slot=b" in site.machine.ssh("sudo cat /boot/efi/pacs/grubenv").stdout
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
    assert failed_units(site) == ""
    assert site.complaints() == []


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_an_upgrade_that_fails_comes_back_and_keeps_what_was_stored(
    alone: Installation, upgrade: Path, tmp_path: Path
) -> None:
    """By the playbook, which ends at the first appliance that does not pass."""
    site, began = alone, time.monotonic()
    file, key = broken_upgrade(upgrade, tmp_path)
    send_study(site, tmp_path / "before", 51)
    site.machine.copy_in(file, _FILE)
    site.machine.copy_in(key, "/var/tmp/key.pub")
    assert "not signed by a key" in _refusal(site, _FILE)
    site.machine.ssh("sudo pacs upgrade trust /var/tmp/key.pub --yes")
    before = site.machine.boot_id
    hosts = inventory(site.machine, tmp_path / "play")
    with playing("upgrade.yml", hosts, {"upgrade_file": str(file)}) as play:
        on_trial = site.machine.wait_for_restart(before, 3 * TRIAL_LIMIT_S)
        print(f"on trial after {time.monotonic() - began:.0f} s")
        trial = status(site)
        assert (trial["slot"], trial["running"]["version"]) == ("b", BROKEN_VERSION), trial
        assert trial["record"]["outcome"] == "", trial
        send_patiently(site, tmp_path / "trial", 52)
        site.machine.wait_for_restart(on_trial, 2 * TRIAL_LIMIT_S)
        found = wait_for_end(site, BROKEN_VERSION)
        print(f"rolled back after {time.monotonic() - began:.0f} s")
        code, told = play.wait(TRIAL_LIMIT_S)
    assert (found["record"]["outcome"], found["slot"]) == ("rolled back", "a"), found
    assert WHY in found["record"]["why"], found
    assert code != 0
    assert WHY in told, told
    assert not re.search(r"^second |\[second\]", told, re.MULTILINE), f"the playbook went on after a failure: {told}"
    wait_until_put_right(site)
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
    assert failed_units(site) == ""
    complaints = [line for line in site.complaints() if "upgrade" in line]
    assert complaints
    assert "was rolled back" in complaints[0]


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_the_playbook_upgrades_one_after_the_other(alone: Installation, upgrade: Path, tmp_path: Path) -> None:
    """The first passes; the second does not answer, and the playbook says so. Once more: the first is passed over."""
    site, slot = alone, status(alone)["slot"]
    send_study(site, tmp_path / "before", 53)
    hosts, began = inventory(site.machine, tmp_path / "play"), time.monotonic()
    variables = {"upgrade_file": str(upgrade), "upgrade_options": ["--again"]}
    with playing("upgrade.yml", hosts, variables) as play:
        code, told = play.wait(3600)
    print(f"by the playbook after {time.monotonic() - began:.0f} s")
    found = status(site)
    assert (found["record"]["outcome"], found["slot"]) == ("passed", "b" if slot == "a" else "a"), f"{found}\n{told}"
    assert re.search(r"^first .*unreachable=0 +failed=0", told, re.MULTILINE), told
    assert re.search(r"^second .*unreachable=1", told, re.MULTILINE), told
    assert code != 0, told
    assert site.machine.ssh(f"ls {_FILE}", check=False).returncode != 0, "the file was left behind"
    with playing("upgrade.yml", hosts, {"upgrade_file": str(upgrade)}, "--limit", "first") as play:
        code, told = play.wait(600)
    assert code == 0, told
    assert re.search(r"^first .*changed=0 ", told, re.MULTILINE), "who runs the version already was not passed over"
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
