"""Disks that are added later: made ready, mounted at each start on any system disk; and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.integration.machine.test_disks import (  # noqa: F401 (fixtures)
    MIB,
    REPOSITORY,
    Rig,
    loop_devices_work,
    rig,
    three,
)

pytestmark = pytest.mark.skipif(not loop_devices_work(), reason="needs root and loop devices")

_ADD = """{python} - <<'END'
import os
from pathlib import Path
from pacs.errors import PacsError
from pacs.machine import disk, storage
places = storage.Places(Path(os.environ["VOLUMES"]), disk_types=("loop",), disks=frozenset("{all}".split(",")))
try:
    print(disk.add(places, "{device}", "{name}"), file=open(os.environ["OUT"], "a"))
except PacsError as error:
    print("refused:", error, file=open(os.environ["OUT"], "a"))
END
"""
_MAKE_VOLUME = """{python} - <<'END'
import os
from pathlib import Path
from pacs.storage.volume import create_identity
create_identity(Path(os.environ["VOLUMES"], "{name}"), ("tier2",), "{appliance_id}")
END
"""


def _add(rig: Rig, disk: str, name: str) -> str:  # noqa: F811
    plugged = ",".join(rig.plugged.values())
    return _ADD.format(python=sys.executable, device=rig.plugged[disk], name=name, all=plugged)


@pytest.fixture
def with_more(three: Rig) -> tuple[Rig, str]:  # noqa: F811
    """A machine with its three disks and a fourth, which is a volume with something on it."""
    appliance_id = three.ready()["appliance_id"]
    three.plug("fourth", 1500)
    made = _MAKE_VOLUME.format(python=sys.executable, name="more", appliance_id=appliance_id)
    found = three.ready(
        then=_add(three, "fourth", "more") + made + "echo stored >$VOLUMES/more/x; stat -c %U $VOLUMES/more >>$OUT"
    )
    assert found["output"].endswith("/srv/more\npacs\n"), found["output"]
    assert ["more", three.plugged["fourth"]] in [mount[:2] for mount in found["mounts"]]
    return three, appliance_id


def test_an_added_disk_comes_back_on_any_system_disk_wherever_it_is(with_more: tuple[Rig, str]) -> None:
    machine, appliance_id = with_more
    look = "cat $VOLUMES/more/x >$OUT; echo stored >$VOLUMES/tier1/x"
    assert machine.ready(then=look)["output"] == "stored\n"
    machine.new_system_disk()
    machine.unplug()
    for name in ("fourth", "big", "small", "middle"):
        machine.plug(name)
    found = machine.ready(then=look)
    assert (found["output"], found["appliance_id"], found["notes"]) == ("stored\n", appliance_id, [])
    options = next(options for name, _, options in found["mounts"] if name == "more")
    assert {"nodev", "nosuid", "noexec", "noatime"} <= set(options.split(","))
    machine.unplug("fourth")
    assert machine.ready()["problems"] == [], "its volume is missing, and all else goes on"


def test_one_that_is_ready_already_is_only_mounted(with_more: tuple[Rig, str]) -> None:
    machine, _appliance_id = with_more
    again = "umount $VOLUMES/more;" + _add(machine, "fourth", "more") + "cat $VOLUMES/more/x >>$OUT"
    assert machine.ready(then=again)["output"].endswith("/srv/more\nstored\n")


_REFUSED = [
    ("fourth", "tier1", "cannot be a name here"),
    ("fourth", "Archive 2", "cannot be a name here"),
    ("fourth", "twelve-signs", "cannot be a name here"),
    ("middle", "more", "is a volume of appliance"),
    ("small", "more", "is a volume of appliance"),
    ("used", "more", "is not blank"),
    ("tiny", "more", "smaller than 1 GiB"),
]


def test_what_is_no_blank_disk_is_left_alone(three: Rig) -> None:  # noqa: F811
    three.ready()
    three.plug("fourth", 1500)
    three.plug("tiny", 500)
    with (three.folder / "used").open("wb") as stream:
        stream.write(b"somebody's")
        stream.truncate(1200 * MIB)
    three.plug("used")

    def start(name: str) -> bytes:
        with (three.folder / name).open("rb") as stream:
            return stream.read(8 * MIB)

    before = {name: start(name) for name in ("used", "tiny", "fourth")}
    said = three.ready(then="".join(_add(three, disk, name) for disk, name, _says in _REFUSED))["output"].splitlines()
    for line, (_disk, _name, says) in zip(said, _REFUSED, strict=True):
        assert line.startswith("refused:"), line
        assert says in line
    assert f"Blank are: {three.plugged['fourth']}" in said[-2]
    assert {name: start(name) for name in before} == before


_FORGET = """
import sys
from pathlib import Path
from pacs.errors import PacsError
from pacs.machine import disk, storage
system = Path("{system}")
places = storage.Places(
    system / "srv", system / "var/volumes.json", system / "run/storage.json", ("loop",), frozenset("{all}".split(","))
)
try:
    disk.forget(places, "{role}", {is_lost})
except PacsError as error:
    print("refused:", error)
"""


def _forget(rig: Rig, role: str, is_lost: bool) -> str:  # noqa: F811
    text = _FORGET.format(system=rig.folder / "system", all=",".join(rig.plugged.values()), role=role, is_lost=is_lost)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PATH": f"{rig.folder}/bin:{os.environ['PATH']}"}
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", text]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout


def test_a_disk_that_is_lost_is_forgotten_and_the_rest_starts(three: Rig) -> None:  # noqa: F811
    three.ready(then="echo stored >$VOLUMES/tier1/x")
    three.unplug("big")
    assert "tier2" in three.refused()
    assert "is in use" in _forget(three, "tier2", False)
    assert "is no volume" in _forget(three, "state", True)
    assert "is no volume" in _forget(three, "tier3", True)
    assert "tier2" in three.refused()
    assert _forget(three, "tier2", True) == ""
    found = three.ready(then="cat $VOLUMES/tier1/x >$OUT")
    assert (found["roles"], found["output"]) == (["state", "tier1"], "stored\n")
    three.new_system_disk()
    assert three.ready()["roles"] == ["state", "tier1"], "the state volume knows it too"


def test_a_disk_that_was_emptied_is_forgotten(three: Rig) -> None:  # noqa: F811
    three.ready(then="echo '{}' >$VOLUMES/tier2/retired.json; echo stored >$VOLUMES/tier1/x")
    look = f"""{sys.executable} -c "
from pathlib import Path
from pacs.machine import disk, storage
disk.forget(storage.Places(Path('$VOLUMES'), Path('{three.folder}/system/var/volumes.json')), 'tier2')" """
    three.ready(then=look)
    three.unplug("big")
    assert three.ready()["roles"] == ["state", "tier1"]
