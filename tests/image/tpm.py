"""A virtual TPM 2.0 for a machine in QEMU, by swtpm: its memory is a folder, so that a machine can get another one."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

_START_LIMIT_S = 20.0


@dataclass
class Tpm:
    """A TPM. `folder` is its memory; a program runs for each power on of its machine."""

    folder: Path
    _program: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def socket(self) -> Path:
        """What QEMU connects to."""
        return self.folder / "tpm.sock"

    def start(self) -> None:
        """Have it ready for a machine that is powered on next."""
        self.stop()
        self.folder.mkdir(exist_ok=True)
        self.socket.unlink(missing_ok=True)
        command = ["setpriv", "--pdeathsig", "KILL", "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder}"]
        command += ["--ctrl", f"type=unixio,path={self.socket}"]
        with (self.folder / "swtpm.log").open("ab") as log:
            self._program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_LIMIT_S
        while not self.socket.exists():
            if self._program.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"swtpm did not start: {(self.folder / 'swtpm.log').read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End its program; what it remembers stays."""
        if self._program is not None:
            self._program.terminate()
            self._program.wait()
            self._program = None

    @property
    def arguments(self) -> list[str]:
        """QEMU's arguments."""
        return [
            "-chardev", f"socket,id=tpm,path={self.socket}", "-tpmdev", "emulator,id=tpm0,chardev=tpm",
            "-device", "tpm-tis,tpmdev=tpm0",
        ]  # fmt: skip
