"""A share that can be made to hang: a file system in user space (bindfs) on top of another one.

With the lower one stopped, the upper one has taken a call and does not answer it: what waits in it cannot be ended by
SIGKILL, as on a dead NFS server.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacs.storage import share_pool
from pacs.storage.share_place import make_at

APPLIANCE_ID = str(uuid.UUID(int=1))
OPTIONS = {"any_file_system": True, "timeout_s": 1.5}


@dataclass
class Share:
    """A mounted share: `folder` is where, `server` what is on the far side of it."""

    server: Path
    folder: Path
    lower: subprocess.Popen[bytes]
    upper: subprocess.Popen[bytes]

    def hang(self) -> None:
        """Have it answer nothing any more."""
        self.lower.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.lower.send_signal(signal.SIGCONT)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    """A share that is a volume already."""
    if shutil.which("bindfs") is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("bindfs or /dev/fuse is not here")
    server, lower, folder = (tmp_path / name for name in ("server", "lower", "share"))
    running = []
    for source, mounted in ((server, lower), (lower, folder)):
        source.mkdir(exist_ok=True)
        mounted.mkdir(exist_ok=True)
        running.append(subprocess.Popen(["bindfs", "-f", "-o", "attr_timeout=0,entry_timeout=0", source, mounted]))
        ends = time.monotonic() + 20
        while not mounted.is_mount():
            assert running[-1].poll() is None and time.monotonic() < ends
            time.sleep(0.01)
    made = Share(server, folder, running[0], running[1])
    make_at("smb", str(folder), {**OPTIONS, "timeout_s": 60}, "tier3", APPLIANCE_ID)
    yield made
    made.wake()
    share_pool._pools.pop(str(folder)).close()
    for mounted, process in ((folder, running[1]), (lower, running[0])):
        subprocess.run(["umount", "-l", mounted] if os.geteuid() == 0 else ["fusermount3", "-uz", mounted], check=True)
        process.kill()  # with it, whatever waits in a call there gets an error
        process.wait(20)
