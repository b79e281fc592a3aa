"""An archive moves to other virtual hardware, the old machine follows the new one, and takes over when that dies.

The two reach one another's port 22 through ports forwarded from 127.0.0.1. What lies between two machines that fall
silent is tests/roles/test_standby.py's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from packer.accelerator import Accelerator
from tests.image.hardware import Firmware
from tests.image.installation import DICOM_PORT, Installation, install, remove
from tests.image.machine import HOST_AS_THE_GUEST_SEES_IT
from tests.image.ova import Imported
from tests.image.seed import ADMINISTRATOR
from tests.modality import Modality, name_of

_REPOSITORY = Path(__file__).parents[2]
#: On an emulated machine.
_LIMIT_S = 900.0


@pytest.fixture
def pair(
    installations: dict[Firmware, Installation], imported: Imported, folder: Path, accelerator: Accelerator
) -> Iterator[tuple[Installation, Installation]]:
    """Two imports of the OVA, on other virtual hardware each, running; no other machine is."""
    for other in installations.values():
        if other.machine.is_on:
            other.machine.shut_down()
    made = [
        install(imported, folder / name, firmware, accelerator)
        for name, firmware in (("first", Firmware.BIOS), ("second", Firmware.UEFI))
    ]
    for each in made:
        each.running()
    yield made[0], made[1]
    for each in made:
        remove(each)


@pytest.fixture
def modality(tmp_path: Path) -> Iterator[Modality]:
    made = Modality(tmp_path / "sent.jsonl", 7)
    yield made
    made.end()


def _json(site: Installation, words: str, timeout_s: float = 120) -> Any:
    return json.loads(site.machine.ssh(f"sudo pacs {words} --json", timeout_s=timeout_s).stdout)


def _host(site: Installation) -> str:
    """Where the modality sends."""
    return f"127.0.0.1:{site.machine.ports[DICOM_PORT]}"


def _wait_for(look: Callable[[], Any], otherwise: str) -> None:
    ends = time.monotonic() + _LIMIT_S
    while not look():
        assert time.monotonic() < ends, otherwise
        time.sleep(2)


def _is_followed(site: Installation) -> bool:
    return bool((_json(site, "standby status")["log"] or {}).get("is_streaming"))


def _inventory(folder: Path, **sites: Installation) -> Path:
    """What an operator's workstation knows of them."""
    hosts, known = {}, folder / "known_hosts"
    with known.open("w") as file:
        for name, site in sites.items():
            port = site.machine.ports[22]
            words = ["ssh-keyscan", "-p", str(port), "-T", "60", "-t", "ed25519", "127.0.0.1"]
            file.write(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            hosts[name] = {
                "ansible_host": "127.0.0.1", "ansible_port": port, "ansible_user": ADMINISTRATOR,
                "ansible_ssh_private_key_file": str(site.machine.key),
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={known}",
                "pacs_peer_host": HOST_AS_THE_GUEST_SEES_IT, "pacs_peer_port": port,
            }  # fmt: skip
    (folder / "hosts.yml").write_text(yaml.safe_dump({"appliance": {"hosts": hosts}}))
    return folder / "hosts.yml"


def _move(inventory: Path, certificate: Path) -> str:
    words = [sys.executable, "-m", "pacs.cli.main", "fleet", "move", "first", "second", "-i", str(inventory)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*words, "--certificate", str(certificate)], cwd=_REPOSITORY, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "PATH": path, "SSH_AUTH_SOCK": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _severe(site: Installation) -> list[str]:
    """What is critical, but for a twin that is not there any more."""
    return [line for line in site.complaints() if line.startswith("critical") and " standby:" not in line]


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_an_archive_moves_and_the_old_machine_takes_over_again(
    pair: tuple[Installation, Installation], modality: Modality, tmp_path: Path
) -> None:
    first, second = pair
    device = f"--ae-title {name_of(modality.seed)} --host {HOST_AS_THE_GUEST_SEES_IT} --port 11112"
    first.machine.ssh(f"sudo pacs device add modality {device}")
    modality.begin(_host(first), _host(second))
    modality.wait_for_more(_host(first), 100, _LIMIT_S)

    # The archive moves while images come.
    certificate, began_s = tmp_path / "equality.json", time.monotonic()
    print(_move(_inventory(tmp_path, first=first, second=second), certificate))
    modality.wait_for_more(_host(second), 20, _LIMIT_S)
    last, new = modality.taken_by(_host(first))[-1], modality.taken_by(_host(second))[0]
    objects = [each["objects"] for each in json.loads(certificate.read_bytes())["nodes"]]
    print(
        f"moved in {time.monotonic() - began_s:.0f} s; {objects[0]} objects compared on both; "
        f"nothing was taken for {new['at_s'] - last['at_s']:.0f} s"
    )
    assert objects[0] == objects[1] >= len(modality.taken_by(_host(first)))
    second.machine.ssh("sudo pacs standby release")

    # The old machine follows the new one, which loses its power while images come.
    first.machine.ssh("sudo pacs standby follow --yes", timeout_s=_LIMIT_S)
    _wait_for(lambda: _is_followed(second), "the old machine does not follow")
    _wait_for(lambda: not _json(second, "standby status")["objects"]["waiting"], "it does not get all")
    second.machine.cut_power()
    began_s = time.monotonic()
    promoted = _json(first, "standby promote --yes", _LIMIT_S)
    taken = len(modality.taken_by(_host(first)))
    _wait_for(lambda: len(modality.taken_by(_host(first))) > taken, "the promoted one takes nothing")
    took_s = modality.taken_by(_host(first))[taken]["at_s"] - began_s
    modality.end()
    compared = modality.compared(_host(first))
    listed = sum(row["objects"] for row in promoted["not_here"])
    print(
        f"promoted in {promoted['took_s']:.0f} s, the first C-STORE taken after {took_s:.0f} s; acknowledged "
        f"{compared['acknowledged']}, of those not here {len(compared['missing'])}, listed {listed}"
    )
    assert took_s < 60
    assert compared["different"] == []
    lost = len(compared["missing"])

    # The new machine has its power again: what only it had comes back, and it follows in its turn.
    second.machine.boot()
    _wait_for(lambda: _json(second, "lineage show")["fenced"], "it is not fenced")
    second.machine.ssh("sudo pacs standby follow --yes", timeout_s=_LIMIT_S)
    _wait_for(lambda: _is_followed(first), "the new machine does not follow")
    first.machine.ssh("sudo systemctl start pacs-reconcile.service", timeout_s=_LIMIT_S)
    _wait_for(lambda: not modality.compared(_host(first))["missing"], f"not all of the {lost} come back")
    for site in (first, second):
        assert site.host().check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert _severe(first) == []
