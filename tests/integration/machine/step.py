"""One start of the storage, in a process that may be killed in the middle. See test_disks.py.

Arguments: the rig's folder, the disks (comma-separated), the event to die at (0: none), a shell command to run after.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pacs.machine import storage
from pacs.storage import durable

folder, disks, die_at, then = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
events = 0


def count_event() -> None:
    global events
    events += 1
    if events == die_at:
        os.kill(os.getpid(), signal.SIGKILL)


real_run, real_fsync = subprocess.run, durable.fsync_fd


def run_and_count(*arguments: Any, **options: Any) -> Any:
    count_event()
    return real_run(*arguments, **options)


def fsync_and_count(fd: int) -> None:
    count_event()
    real_fsync(fd)


# The system's own calls are counted, not replaced: everything still happens.
subprocess.run = run_and_count
durable.fsync_fd = fsync_and_count

for name in ("passwd", "group"):
    real_run(["mount", "--bind", folder / name, f"/etc/{name}"], check=True)
system = folder / "system"
for path in (system / "srv", system / "run"):
    path.mkdir(parents=True, exist_ok=True)
storage.WAIT_FOR_DISKS_S = 0.0
places = storage.Places(
    system / "srv", system / "var/volumes.json", system / "run/storage.json", ("loop",), frozenset(disks.split(","))
)
answer = storage.start(places)
if then.startswith("grow "):  # while mounted: enlarge the image behind a disk, then look
    image, device, size_bytes, then = then.split(" ", 4)[1:]
    os.truncate(image, int(size_bytes))
    real_run(["losetup", "--set-capacity", device], check=True)
    for _look in range(2):
        grown, problems = storage.grow(places)
        answer = replace(answer, notes=(*answer.notes, *(f"grew {each}" for each in grown), *problems))
out = system / "run/out"
out.unlink(missing_ok=True)
if then and answer.ready:
    real_run(["sh", "-ec", then], check=True, env={**os.environ, "VOLUMES": str(places.volumes), "OUT": str(out)})
listed = real_run(["findmnt", "--json", "--output", "TARGET,SOURCE,OPTIONS", "--list"], capture_output=True, check=True)
mounts = [
    (Path(one["target"]).name, one["source"], one["options"])
    for one in json.loads(listed.stdout)["filesystems"]
    if one["target"].startswith(str(places.volumes))
]
sys.stdout.write(
    json.dumps(
        {
            "ready": answer.ready,
            "problems": answer.problems,
            "offered": answer.offered,
            "notes": answer.notes,
            "roles": answer.roles,
            "appliance_id": answer.appliance_id,
            "mounts": mounts,
            "output": out.read_text() if out.exists() else "",
        }
    )
)
