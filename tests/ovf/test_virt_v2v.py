"""virt-v2v itself imports the OVA: the real one of dist/, or the one named in PACS_OVA."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

GIB = 1024**3
_DIST = Path(__file__).parents[2] / "dist"

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def real_ova() -> Path:
    """An OVA with a system in it: virt-v2v looks inside."""
    named = os.environ.get("PACS_OVA")
    built = [Path(named)] if named else sorted(_DIST.glob("pacs-appliance-*.ova"))
    if not built:
        pytest.skip("there is no dist/pacs-appliance-*.ova: run `make appliance` first")
    return built[-1]


def test_virt_v2v_imports_the_ova(real_ova: Path, tmp_path: Path) -> None:
    # It converts for a minute before it misses one of the other two.
    for tool in ("virt-v2v", "nbdkit", "nbdcopy"):
        assert shutil.which(tool), f"{tool}: run requirements/ensure-debian requirements/debian-test-long.txt"
    answer = subprocess.run(
        ["virt-v2v", "-i", "ova", real_ova, "-o", "local", "-of", "qcow2", "-os", tmp_path],
        env={**os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "virtio drivers installed" in answer.stdout
    sizes = []
    for letter in "abcd":
        disk = tmp_path / f"pacs-appliance-sd{letter}"
        told = subprocess.run(["qemu-img", "info", "--output=json", disk], capture_output=True, check=True).stdout
        sizes.append(json.loads(told)["virtual-size"])
    assert sizes[1:] == [8 * GIB, 16 * GIB, 32 * GIB]
    assert sizes[0] > 12 * GIB
