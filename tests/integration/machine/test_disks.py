"""Claiming, adopting, growing: the real programs on loop devices, in a mount namespace of each step's own.

A step is a process (`step.py`) that starts the storage once and says what came of it; it can be killed at any of its
system calls that count: a program run, an fsync. Its mounts end with it. A kill leaves the page cache whole, so this
proves the order of the steps; that what they wrote is on the disk is proven by cutting a virtual machine's power.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
MIB = 1 << 20
KILLED = -9


def loop_devices_work() -> bool:
    return (
        os.geteuid() == 0
        and all(map(shutil.which, ("losetup", "mkfs.ext4", "unshare", "blkid", "wipefs")))
        and (subprocess.run(["losetup", "-f"], capture_output=True, check=False).returncode == 0)
    )


pytestmark = pytest.mark.skipif(not loop_devices_work(), reason="needs root and loop devices")


@dataclass
class Rig:
    """A machine of sorts: a system disk's memory, and data disks that can be plugged in and out."""

    folder: Path
    plugged: dict[str, str] = field(default_factory=dict)

    def plug(self, name: str, size_mib: int = 0) -> None:
        """Plug a disk in; a new one is blank and of that size."""
        image = self.folder / name
        if not image.exists():
            with image.open("wb") as stream:
                stream.truncate(size_mib * MIB)
        self.plugged[name] = subprocess.check_output(["losetup", "-f", "--show", image], text=True).strip()

    def unplug(self, *names: str) -> None:
        for name in names or tuple(self.plugged):
            subprocess.run(["losetup", "-d", self.plugged.pop(name)], check=True)

    def enlarge(self, name: str, size_mib: int) -> None:
        self.unplug(name)
        os.truncate(self.folder / name, size_mib * MIB)
        self.plug(name)

    def new_system_disk(self) -> None:
        shutil.rmtree(self.folder / "system", ignore_errors=True)

    def step(self, die_at: int = 0, then: str = "", without_volumes: bool = False) -> dict[str, Any]:
        """Start the storage. die_at: be killed at that event; then: a shell command among the mounts."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        if without_volumes:
            environment["PACS_MACHINE_WITHOUT_VOLUMES"] = "1"
        answer = subprocess.run(
            [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                sys.executable,
                Path(__file__).with_name("step.py"),
                self.folder,
                ",".join(self.plugged.values()),
                str(die_at),
                then,
            ],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if answer.returncode == KILLED:
            return {"killed": True}
        assert answer.returncode == 0, answer.stderr
        found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
        return found

    def ready(self, **how: Any) -> dict[str, Any]:
        found = self.step(**how)
        assert found["ready"], found["problems"]
        return found

    def refused(self, **how: Any) -> str:
        found = self.step(**how)
        assert not found["ready"]
        assert found["mounts"] == []
        return "\n".join(found["problems"])


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    users = {"pacs": 2100, "postgres": 2101}
    for name in ("passwd", "group"):
        own = "".join(
            f"{user}:x:{number}:" + (f"{number}::/:/bin/false\n" if name == "passwd" else "\n")
            for user, number in users.items()
        )
        (tmp_path / name).write_text(Path("/etc", name).read_text() + own)
    (tmp_path / "bin").mkdir()
    if not shutil.which("udevadm"):  # this host has no udev: nothing to wait for
        (tmp_path / "bin/udevadm").write_text("#!/bin/sh\n")
        (tmp_path / "bin/udevadm").chmod(0o755)
    yield made
    made.unplug()


@pytest.fixture
def three(rig: Rig) -> Rig:
    for name, size_mib in (("big", 1300), ("small", 1100), ("middle", 1200)):
        rig.plug(name, size_mib)
    return rig


def test_three_disks_smallest_first(three: Rig) -> None:
    found = three.ready(then="echo stored >$VOLUMES/tier1/x; stat -c '%U %a' $VOLUMES/state/* >$OUT")
    assert found["roles"] == ["state", "tier1", "tier2"]
    assert {role: device for role, device, _ in found["mounts"]} == {
        "state": three.plugged["small"],
        "tier1": three.plugged["middle"],
        "tier2": three.plugged["big"],
    }
    for _, _, options in found["mounts"]:
        assert {"nodev", "nosuid", "noexec", "noatime"} <= set(options.split(","))
    again = three.ready(then="cat $VOLUMES/tier1/x >$OUT")
    assert again["output"] == "stored\n"
    assert again["appliance_id"] == found["appliance_id"]


def test_the_end_of_the_disk_is_left_free_for_encryption(three: Rig) -> None:
    three.ready()
    said = subprocess.check_output(["dumpe2fs", "-h", three.plugged["small"]], text=True, stderr=subprocess.DEVNULL)
    values = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    assert int(values["Block count"]) * 4096 == (1100 - 32) * MIB
    assert values["Filesystem volume name"].strip() == "pacs-state"


def test_of_two_disks_the_smaller_is_state_and_tier1(rig: Rig) -> None:
    rig.plug("big", 1300)
    rig.plug("small", 1100)
    found = rig.ready(then="echo stored >$VOLUMES/tier1/x; cat $VOLUMES/state/tier1/x >$OUT")
    assert found["output"] == "stored\n"
    assert found["roles"] == ["state", "tier1", "tier2"]
    rig.new_system_disk()
    assert rig.ready(then="cat $VOLUMES/tier1/x >$OUT")["output"] == "stored\n"


def test_one_disk_has_no_tier2(rig: Rig) -> None:
    rig.plug("only", 1100)
    assert rig.ready()["roles"] == ["state", "tier1"]
    assert rig.ready()["roles"] == ["state", "tier1"]
    setting = (rig.folder / "system/run/volumes.env").read_text()
    assert setting == f"PACS_TIER2={rig.folder}/system/srv/tier1\n"


def test_a_new_system_disk_takes_the_old_data_disks(three: Rig) -> None:
    found = three.ready(then="echo stored >$VOLUMES/tier2/x")
    three.new_system_disk()
    again = three.ready(then="cat $VOLUMES/tier2/x >$OUT")
    assert again["output"] == "stored\n"
    assert again["appliance_id"] == found["appliance_id"]


@pytest.mark.parametrize("lost", ["small", "middle", "big"])
@pytest.mark.parametrize("new_system_disk", [False, True])
def test_never_without_all_of_them(three: Rig, lost: str, new_system_disk: bool) -> None:
    three.ready()
    three.unplug(lost)
    three.plug("blank", 1250)
    if new_system_disk:
        three.new_system_disk()
    assert "missing" in three.refused()
    three.plug(lost)
    found = three.ready()
    assert found["offered"] == [[three.plugged["blank"], 1250 * MIB]]


def test_a_disk_that_is_not_blank_is_left_alone(rig: Rig) -> None:
    rig.plug("wiped", 1100)
    with (rig.folder / "wiped").open("r+b") as stream:
        stream.seek(2 * MIB)
        stream.write(b"what a tool without a signature left")
    before = (rig.folder / "wiped").read_bytes()
    assert "no blank disk" in rig.refused()
    assert (rig.folder / "wiped").read_bytes() == before


def test_an_empty_set_gives_way_and_two_with_data_ask(three: Rig) -> None:
    old = three.ready(then="echo old >$VOLUMES/tier1/x")
    three.unplug()
    three.new_system_disk()
    three.plug("new", 1100)
    new = three.ready()
    for name in ("big", "small", "middle"):
        three.plug(name)
    assert three.ready(then="cat $VOLUMES/tier1/x >$OUT")["output"] == "old\n"
    three.new_system_disk()
    assert three.ready()["appliance_id"] == old["appliance_id"]
    three.unplug("big", "small", "middle")
    three.new_system_disk()
    assert three.ready(then="echo new >$VOLUMES/tier1/x")["appliance_id"] == new["appliance_id"]
    for name in ("big", "small", "middle"):
        three.plug(name)
    assert "More than one set" in three.refused()


@pytest.mark.parametrize("file", ["volume.json", "volumes.json"])
def test_newer_data_is_refused_before_a_byte_is_written(three: Rig, file: str) -> None:
    three.ready(then=f"""sed -i 's/"format": 1/"format": 2/' $VOLUMES/state/{file}""")
    three.new_system_disk()
    before = (three.folder / "small").read_bytes()
    assert "Nothing was touched" in three.refused()
    assert (three.folder / "small").read_bytes() == before


def may_resize() -> bool:
    """Whether this process has CAP_SYS_RESOURCE, capability 24, which ext4 wants for growing while mounted."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> 24 & 1)


@pytest.mark.skipif(not may_resize(), reason="needs CAP_SYS_RESOURCE, which this host keeps to itself")
def test_volumes_grow_with_their_disks(three: Rig) -> None:
    three.ready()
    three.enlarge("middle", 2400)
    found = three.ready(then="df --output=size -BM $VOLUMES/tier1 | tail -1 >$OUT")
    assert int(found["output"].strip(" M\n")) > 2200


@pytest.mark.parametrize("disk", ["small", "middle"])
def test_a_disk_that_grows_while_its_volume_is_in_use(three: Rig, disk: str) -> None:
    three.ready()
    device, mount = three.plugged[disk], {"small": "state", "middle": "tier1"}[disk]
    then = f"grow {three.folder / disk} {device} {2400 * MIB} df --output=size -BM $VOLUMES/{mount} | tail -1 >$OUT"
    found = three.ready(then=then)
    if may_resize():
        assert found["notes"] == [f"grew {device}"], "once, and then there is nothing to do"
        assert int(found["output"].strip(" M\n")) > 2200
    else:
        assert all(note.startswith(f"{device} could not be grown") for note in found["notes"])
        assert len(found["notes"]) == 2


@pytest.mark.skipif(may_resize(), reason="here growing works")
def test_a_volume_that_cannot_grow_is_used_as_it_is(three: Rig) -> None:
    three.ready()
    three.enlarge("middle", 2400)
    assert "could not be grown" in three.ready()["notes"][0]


def test_without_volumes(rig: Rig) -> None:
    assert "no blank disk" in rig.refused()
    found = rig.ready(without_volumes=True, then="echo stored >$VOLUMES/tier1/x")
    assert found["mounts"] == []
    assert found["roles"] == ["state", "tier1", "tier2"]
    rig.plug("blank", 1100)
    again = rig.ready(without_volumes=True)
    assert again["offered"] == [[rig.plugged["blank"], 1100 * MIB]]
    assert "setting" in rig.refused()


@pytest.mark.parametrize("start", [12, *(pytest.param(start, marks=pytest.mark.long) for start in range(1, 12))])
def test_a_claim_killed_anywhere_is_done_again(rig: Rig, start: int) -> None:
    """Every twelfth event from `start` on, twice in a row where it can be, on ever new disks."""
    for die_at in range(start, 400, 12):
        for name, size_mib in (("a", 1100), ("b", 1200), ("c", 1300)):
            rig.plug(name, size_mib)
        killed = rig.step(die_at=die_at).get("killed")
        rig.step(die_at=max(1, die_at // 2))
        found = rig.ready(then="echo stored >$VOLUMES/tier2/x")
        assert found["roles"] == ["state", "tier1", "tier2"]
        assert {device for _, device, _ in found["mounts"]} == set(rig.plugged.values())
        rig.new_system_disk()
        assert rig.ready(then="cat $VOLUMES/tier2/x >$OUT")["output"] == "stored\n"
        rig.unplug()
        for path in [*rig.folder.glob("?"), rig.folder / "system"]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if not killed:
            return
    pytest.fail("the claim has more events than this test counts")
