"""Encrypted volumes with dm-crypt and a TPM, in a Linux kernel that is a process (tests/remote/encrypted.py)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.remote.encrypted import FIRST, SECOND
from tests.remote.root import far_root
from tests.remote.uml import run_in_uml

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

_SIZES_MIB = {"disk0": 1100, "disk1": 1150, "disk2": 1200, "disk3": 1100}
_PREPARE = (
    "for one in passwd group; do mount --bind /far/$one /etc/$one; done; "
    "mkdir -p /run/cloud-init /dev/shm; mount -t tmpfs shm /dev/shm; "
    "for one in dm_crypt algif_skcipher xts; do modprobe $one; done; "
    "PATH=/far/bin:$PATH python3 -m tests.remote.encrypted "
)
#: The TPM is a program that is asked over TCP; udev and the hypervisor are not there.
_STANDING_IN = {
    "systemd-cryptenroll": 'exec /usr/bin/systemd-cryptenroll "$@"',
    "systemd-cryptsetup": 'exec /usr/bin/systemd-cryptsetup "$@"',
    "udevadm": "exit 0",
    "systemd-detect-virt": "exit 0",
}
_BY_TCP = 'for word; do shift; set -- "$@" "$(echo "$word" | sed s/tpm2-device=auto/tpm2-device=swtpm:/)"; done'


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong in each trial: nothing, it is hoped."""
    folder, root = tmp_path_factory.mktemp("uml"), Path(far_root())
    for name, size_mib in _SIZES_MIB.items():
        (folder / name).touch()
        os.truncate(folder / name, size_mib << 20)
    for name, more in (("passwd", "pacs:x:901:901::/:/bin/sh\npostgres:x:902:902::/:/bin/sh\n"),
                       ("group", "pacs:x:901:\npostgres:x:902:\n")):  # fmt: skip
        (folder / name).write_text((root / "etc" / name).read_text() + more)
    (folder / "bin").mkdir()
    for name, line in _STANDING_IN.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{_BY_TCP}\n{line}\n")
        path.chmod(0o755)
    printed = run_in_uml(root, folder, f"{_PREPARE} first", 1200, tuple(_SIZES_MIB))
    os.truncate(folder / "disk2", 1700 << 20)
    (folder / "status").unlink()
    printed += run_in_uml(root, folder, f"{_PREPARE} second", 300, tuple(_SIZES_MIB))
    print(printed)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {line["name"]: line["problem"] for line in lines}


@pytest.mark.parametrize("trial", [each.__name__ for each in (*FIRST, *SECOND)])
def test_encrypted_volumes(outcomes: dict[str, str], trial: str) -> None:
    assert outcomes.pop(trial) == ""
