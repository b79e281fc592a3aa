"""A Linux kernel as a process (User Mode Linux), with the NFS and SMB clients that the host's own kernel may lack.

It boots in a second from the same root as the other servers (tests/remote/root.py), read-only, with this repository
at /mnt and a folder of the test's at /far, and runs one program as its only task.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/mnt PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
mount -t hostfs none /far -o hostfs=/far
ip link set lo up
{{ {command}; }} > /far/output 2>&1
echo $? > /far/status
python3 -c 'import ctypes, os; os.sync(); ctypes.CDLL(None).reboot(0x4321fedc)'
"""

_OUTSIDE = """\
root=$1 folder=$2 tree=$3
shift 3
mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc"; mount -t tmpfs none "$root/tmp"
mount --bind "$folder" "$root/far"; mount --bind "$tree" "$root/mnt"
exec chroot "$root" env -i PATH=/usr/bin TMPDIR=/dev/shm HOME=/tmp linux.uml mem=768M root=/dev/root \
    rootfstype=hostfs rootflags=/ ro init=/far/init con=null con0=null,fd:1 quiet "$@"
"""


def run_in_uml(root: Path, folder: Path, command: str, timeout_s: float, disks: Sequence[str] = ()) -> str:
    """Run a shell command in a kernel of its own; return what it printed. Raise AssertionError if it failed.

    disks: names of files in folder, which are /dev/ubda, /dev/ubdb and so on there.
    """
    plugged = [f"ubd{chr(ord('a') + number)}=/far/{name}" for number, name in enumerate(disks)]
    init = folder / "init"
    init.write_text(_INIT.format(command=command))
    init.chmod(0o755)
    with (folder / "console").open("wb") as console:
        kernel = subprocess.Popen(
            ["unshare", "-m", "-p", "-f", "--kill-child", "--propagation", "private"]
            + ["bash", "-ec", _OUTSIDE, "bash", str(root), str(folder), str(REPOSITORY), *plugged],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console,
        )  # fmt: skip
        try:
            kernel.wait(timeout_s)
        except subprocess.TimeoutExpired:
            kernel.kill()
            kernel.wait()
    printed = (folder / "output").read_text(errors="replace") if (folder / "output").exists() else ""
    status = (folder / "status").read_text().strip() if (folder / "status").exists() else "no end"
    if status != "0":
        raise AssertionError(f"{status}\n{printed}\n{(folder / 'console').read_text(errors='replace')[-3000:]}")
    return printed
