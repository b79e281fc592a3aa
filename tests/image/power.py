"""Data disks that lose in a power cut what a real disk may lose: every write that no flush has followed.

Killing QEMU alone proves too little: what the guest wrote, flushed or not, is then in the host's page cache. So each
data disk is served by nbdkit, whose cache filter keeps writes in an unlinked file of its own and passes them on to
the disk's file when the guest flushes (measured with qemu-io: a flushed write outlives a SIGKILL of nbdkit, a write
without a flush does not, and a client that goes away flushes nothing).
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

_START_LIMIT_S = 10.0


class DiskServer:
    """One nbdkit, one raw disk file, one unix socket; lives as long as its machine has power."""

    def __init__(self, disk: Path, socket: Path) -> None:
        self.disk = disk
        self.socket = socket
        socket.unlink(missing_ok=True)
        command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", str(socket), "--filter=cache"]
        # The guest's own cache is what makes its reads fast; 4 KiB blocks, so that a small write stays a small one.
        command += ["file", str(disk), "cache=writeback", "cache-min-block-size=4K"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._wait_until_listening()

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + _START_LIMIT_S
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nbdkit does not serve {self.disk}; it ended with {self._process.poll()}")
            time.sleep(0.02)

    def cut(self) -> None:
        """Power off without warning: unflushed writes are gone."""
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """End in an orderly way, after the machine has shut down and so flushed."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self.cut()
