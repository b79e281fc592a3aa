"""How QEMU runs a guest here: KVM where it is proven to work, else emulation with a QEMU that is sound.

That /dev/kvm exists and opens proves nothing: there are machines on which a guest never prints a line, or QEMU aborts.
So KVM counts only after it has booted a kernel to its first output. Without it QEMU emulates (TCG), with one host
thread a guest CPU only from QEMU 8 on: 7.2's guests die of double faults within minutes.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from packer.errors import BuildError
from packer.progress import end_group

QEMU = "qemu-system-x86_64"
SOUND_MULTI_THREADED_TCG = (8, 0)
PROBE_LIMIT_S = 15.0
_PROBE_PROOF = b"Linux version"


@dataclass(frozen=True)
class Accelerator:
    """What to give QEMU as `-accel` and `-cpu`, and why."""

    accel: str
    cpu: str
    why: str

    @property
    def is_kvm(self) -> bool:
        """Whether guests run at native speed."""
        return self.accel == "kvm"


def qemu_version() -> tuple[int, int, int]:
    """Version of the QEMU on the PATH."""
    if not shutil.which(QEMU):
        raise BuildError(f"{QEMU} is not there.", "Run: requirements/ensure-debian requirements/debian-appliance.txt")
    return parse_qemu_version(subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout)


def parse_qemu_version(text: str) -> tuple[int, int, int]:
    """The three numbers in `qemu-system-x86_64 --version`."""
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise BuildError(f"{QEMU} does not say its version.", "Install Debian's qemu-system-x86.")
    return int(found[1]), int(found[2]), int(found[3])


def choose(kernel: Path, device: Path = Path("/dev/kvm")) -> Accelerator:
    """The accelerator for this machine. `kernel` is a bzImage that KVM has to boot to be believed in."""
    refusal = kvm_refusal(kernel, device)
    if refusal is None:
        return Accelerator("kvm", "host", "KVM: it booted a kernel")
    return emulation(qemu_version(), refusal)


def emulation(version: tuple[int, int, int], reason: str) -> Accelerator:
    """TCG as far as this QEMU is sound with it."""
    words = ".".join(str(number) for number in version)
    if version[:2] >= SOUND_MULTI_THREADED_TCG:
        return Accelerator("tcg,thread=multi", "max", f"emulation ({reason}), QEMU {words}")
    why = f"emulation on one thread ({reason}; QEMU {words} is unsound on several), slower"
    return Accelerator("tcg,thread=single", "max", why)


def kvm_refusal(kernel: Path, device: Path = Path("/dev/kvm"), limit_s: float = PROBE_LIMIT_S) -> str | None:
    """Why KVM can't be used, or None when it booted `kernel` to its first output within `limit_s` seconds."""
    if not device.exists():
        return f"no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} is not open to this user: adduser {os.environ.get('USER', 'YOU')} kvm"
    command = [QEMU, "-accel", "kvm", "-cpu", "host", "-m", "512", "-smp", "2", "-nodefaults", "-display", "none"]
    command += ["-no-reboot", "-serial", "stdio", "-kernel", str(kernel)]
    command += ["-append", "console=ttyS0,115200 earlyprintk=ttyS0,115200 panic=-1"]
    return None if _says(command, _PROBE_PROOF, limit_s) else f"{device} is there, but boots no kernel"


def _says(command: list[str], proof: bytes, limit_s: float) -> bool:
    """Whether a command prints `proof` within the limit; it is ended in either case."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    seen = b""
    deadline = time.monotonic() + limit_s
    try:
        while proof not in seen and (left := deadline - time.monotonic()) > 0:
            if select.select([process.stdout], [], [], left)[0]:
                chunk = os.read(process.stdout.fileno(), 4096)
                if not chunk:
                    break
                seen += chunk
    finally:
        end_group(process, grace_s=5)
        process.stdout.close()
    return proof in seen
