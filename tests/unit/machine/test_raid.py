"""Software RAIDs without one: what the kernel and mdadm say is recorded, what they would be told is read."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.checks import raid as check
from pacs.checks.check import Ground
from pacs.cli.raid import lines
from pacs.errors import UsageError
from pacs.machine import raid, raid_notes, survey
from pacs.machine.storage import Places
from pacs.settings import Settings
from pacs.storage.arrays import Array, arrays

_UUID = "3aaa0122:29827cfa:5331ad66:ca767371"
_EXPORT = f"""MD_LEVEL=raid6
MD_DEVICES=4
MD_METADATA=1.2
MD_UUID={_UUID}
MD_DEVNAME=archive
MD_NAME=any:archive
"""


def program(folder: Path, name: str, text: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def kernel(folder: Path, **files: object) -> None:
    """What /sys says of md127, RAID 6 of four disks."""
    md = folder / "sys/md127/md"
    md.mkdir(parents=True, exist_ok=True)
    (md.parent / "size").write_text("4194304\n")
    said = {"level": "raid6", "raid_disks": 4, "array_state": "clean", "degraded": 0, "sync_action": "idle", **files}
    for name, value in said.items():
        (md / name).write_text(f"{value}\n")


def disk(folder: Path, name: str, slot: str, state: str = "in_sync") -> None:
    member = folder / "sys/md127/md" / f"dev-{name}"
    member.mkdir(parents=True, exist_ok=True)
    (member / "slot").write_text(f"{slot}\n")
    (member / "state").write_text(f"{state}\n")


def pull(folder: Path, name: str) -> None:
    member = folder / "sys/md127/md" / f"dev-{name}"
    for each in member.iterdir():
        each.unlink()
    member.rmdir()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a whole RAID 6 of sdb to sde; sdf and sdg are blank. Calls of mdadm are in `told`."""
    (tmp_path / "sys").mkdir()
    monkeypatch.setattr("pacs.storage.arrays.BLOCK", tmp_path / "sys")
    monkeypatch.setattr(check, "REPORT", tmp_path / "run/raid.json")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    kernel(tmp_path)
    for slot, name in enumerate(("sdb", "sdc", "sdd", "sde")):
        disk(tmp_path, name, str(slot))
    (tmp_path / "detail").write_text(_EXPORT)
    program(
        tmp_path,
        "mdadm",
        f"""echo "$*" >>{tmp_path}/told
case "$*" in
"--detail --export "*) cat {tmp_path}/detail ;;
"--detail --scan") echo "ARRAY /dev/md/archive metadata=1.2 UUID={_UUID}" ;;
"--examine --export /dev/sdx") echo MD_UUID={_UUID} ;;
"--examine --export "*) exit 1 ;;
esac""",
    )
    program(
        tmp_path,
        "udevadm",
        """case "$*" in
settle*) ;;
*) n=${3#--name=/dev/}; printf 'ID_PATH=pci-0000:00:1f.2-ata-%s\\nID_SERIAL_SHORT=WX%s\\nID_MODEL=ST8000_X\\n' $n $n ;;
esac""",
    )
    program(tmp_path, "lsblk", f"cat {tmp_path}/lsblk.json")
    (tmp_path / "lsblk.json").write_text('{"blockdevices": [{"size": 8001563222016}]}')
    return tmp_path


def told(machine: Path) -> list[str]:
    path = machine / "told"
    return [line for line in path.read_text().splitlines() if "--export" not in line] if path.exists() else []


def the_array() -> Array:
    return arrays()[0]


def _note(machine: Path) -> dict[str, object]:
    (machine / "state/machine").mkdir(parents=True, exist_ok=True)
    return raid_notes.note(machine / "state", machine / "run/raid.json")[0]


def test_a_disk_that_was_pulled_is_known_by_its_serial_number(machine: Path) -> None:
    ground = Ground(Settings(data=machine))
    shown = lines(the_array(), _note(machine))
    assert shown[0] == "archive  /dev/md127  RAID 6 of 4 disks, 2.1 GB: whole"
    assert "1  /dev/sdc      in use       serial number WXsdc, ST8000 X, 8.0 TB, pci-0000:00:1f.2-ata-sdc" in shown[2]
    assert check.run(ground).severity == "ok"

    pull(machine, "sdc")
    kernel(machine, degraded=1)
    (machine / "run/raid.json").unlink()  # another system disk: what was known is on the state volume
    shown = lines(the_array(), _note(machine))
    assert "1 MISSING, 1 more may fail" in shown[0]
    assert shown[-1].strip().startswith("1  missing; last there: serial number WXsdc, ST8000 X")
    result = check.run(ground)
    assert result.severity == "critical"
    assert "archive (raid6, 4 disks): 1 missing (serial number WXsdc); 1 more may fail" in result.message

    disk(machine, "sdf", "1", "spare")
    kernel(machine, degraded=1, sync_action="recover", sync_completed="1048576 / 2097152", sync_speed=8192)
    shown = lines(the_array(), _note(machine))
    assert "recover 50.0 %, 64 seconds left" in shown[0]
    assert "being rebuilt" in shown[2]
    assert "rebuilt to 50 %, 64 seconds left" in check.run(ground).message
    disk(machine, "sdf", "1")
    kernel(machine)
    _note(machine)
    assert "WXsdf" in "".join(lines(the_array(), _note(machine)))
    assert check.run(ground).severity == "ok"


def test_disks_that_are_never_compared_are_told_of(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [datetime.fromisoformat("2026-11-22T12:00:00+00:00")]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    _note(machine)
    now[0] += timedelta(days=63)
    _note(machine)
    result = check.run(Ground(Settings(data=machine)))
    assert result.severity == "warning" and "not compared for two months" in result.message
    kernel(machine, sync_action="check", sync_completed="1 / 2")
    _note(machine)
    kernel(machine, sync_action="idle", last_sync_action="check", mismatch_cnt=0)
    _note(machine)
    assert check.run(Ground(Settings(data=machine))).severity == "ok"


def _blank(machine: Path, *names: str, used: str = "") -> Places:
    """These are blank disks of this machine, but for one that is used."""
    for name in names:
        with (machine / name).open("wb") as stream:
            stream.truncate(2 << 30)
        if name == used:
            with (machine / name).open("r+b") as stream:
                stream.write(b"somebody's")
    row = {"type": "disk", "size": 2 << 30, "ro": False, "rm": False, "mountpoints": [None]}
    listed = [{"name": name, "path": str(machine / name), **row} for name in names]
    (machine / "lsblk.json").write_text(json.dumps({"blockdevices": listed}))
    program(machine, "blkid", "exit 2")
    program(machine, "wipefs", "exit 0")
    return Places(machine / "srv")


def test_an_array_is_refused_before_anything_is_written(machine: Path) -> None:
    names = ("sdf", "sdg", "sdh", "sdi")
    places = _blank(machine, *names, used="sdg")
    four = [str(machine / name) for name in names]
    for level, disks, said in (
        ("6", four, "not blank"),
        ("6", four[:3], "needs 4 disks"),
        ("5", [four[0], four[0], four[2]], "named twice"),
        ("5", [four[0], four[2], "/dev/sdzz"], "no free disk /dev/sdzz"),
        ("0", four, "no level '0'"),
    ):
        with pytest.raises(UsageError, match=said):
            raid.create(places, "archive", level, disks)
    with pytest.raises(UsageError, match="needs 4 disks"):
        raid.create(places, "archive", "6", four, spares=1)
    with pytest.raises(UsageError, match="cannot be an array's name"):
        raid.create(places, "Archive", "1", four)
    assert told(machine) == []


def test_a_disk_is_added_only_if_it_is_blank_or_was_the_arrays_own(machine: Path) -> None:
    places = _blank(machine, "sdf", "sdg", used="sdg")
    pull(machine, "sdc")
    kernel(machine, degraded=1)
    with pytest.raises(UsageError, match="not blank"):
        raid.add(places, the_array(), str(machine / "sdg"))
    assert raid.add(places, the_array(), str(machine / "sdf")) == "It is rebuilt onto now."
    raid.add(places, the_array(), "/dev/sdx")
    adds = [line for line in told(machine) if "--add" in line]
    assert adds == [f"--manage /dev/md127 --add {machine / 'sdf'}", "--manage /dev/md127 --add /dev/sdx"]


def test_a_disk_that_is_needed_stays(machine: Path) -> None:
    with pytest.raises(UsageError, match="is in use"):
        raid.remove(the_array(), "/dev/sdb")
    raid.remove(the_array(), "/dev/sdb", may_fail=True)
    assert told(machine)[:2] == ["--manage /dev/md127 --fail /dev/sdb", "--manage /dev/md127 --remove /dev/sdb"]
    kernel(machine, degraded=2)
    with pytest.raises(UsageError, match="loses data"):
        raid.remove(the_array(), "/dev/sdd", may_fail=True)
    disk(machine, "sdd", "none", "faulty")
    raid.remove(the_array(), "/dev/sdd")
    with pytest.raises(UsageError, match="nothing to compare"):
        raid.compare(the_array())
    with pytest.raises(UsageError, match="not in use any more"):
        raid.replace(Places(machine), the_array(), "/dev/sdd", "/dev/sdf")


def test_the_survey_sees_an_array_once_and_none_of_its_disks(machine: Path) -> None:
    row = {"type": "disk", "size": 2 << 30, "ro": False, "rm": False, "mountpoints": [None]}
    md = {**row, "name": "md127", "path": str(machine / "md127"), "type": "raid6"}
    listed = [{**row, "name": name, "path": str(machine / name), "children": [md]} for name in ("sdb", "sdc")]
    root = {**md, "name": "md0", "path": "/dev/md0", "type": "raid1", "mountpoints": ["/"]}
    part = {**row, "name": "sda1", "path": "/dev/sda1", "type": "part", "children": [root]}
    listed.append({**row, "name": "sda", "path": "/dev/sda", "children": [part]})
    listed.append({**row, "name": "sdf", "path": str(machine / "sdf")})
    _blank(machine, "md127", "sdf")
    (machine / "lsblk.json").write_text(json.dumps({"blockdevices": listed}))
    found = {each.path: each for each in survey.disks((), ("disk",))}
    assert sorted(found) == [str(machine / "md127"), str(machine / "sdf")]
    assert found[str(machine / "md127")].blank

    member = "aaaa0122-2982-7cfa-5331-ad66ca767371"
    program(machine, "blkid", f"printf 'TYPE=linux_raid_member\\nUUID={member}\\n'")
    (stopped,) = survey.disks((), ("disk",), (str(machine / "sdf"),))
    assert not stopped.blank and stopped.of_stopped_raid and "does not run" in stopped.problem
    program(machine, "blkid", f"printf 'TYPE=linux_raid_member\\nUUID=3{member[1:]}\\n'")
    (left_out,) = survey.disks((), ("disk",), (str(machine / "sdf"),))
    assert not left_out.blank and not left_out.of_stopped_raid, "its RAID runs without it"
