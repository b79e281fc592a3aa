"""Which public keys are shown to sshd just now: so that nobody has to type one at the display.

While this is open, sshd's AuthorizedKeysCommand (role hardening) notes each key that somebody shows for signing in.
It lets nobody in. A person compares the fingerprint, and takes the key or not.
"""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pacs.errors import UsageError
from pacs.machine.commands import MachineError, run
from pacs.machine.setting_values import ssh_keys

_FOLDER = Path("/run/pacs-offered-keys")
_USER = "nobody"


@dataclass(frozen=True)
class OfferedKeys:
    """The keys that are shown for as long as this is entered."""

    folder: Path = _FOLDER

    def __enter__(self) -> OfferedKeys:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o755)
        file = self.folder / "keys"
        file.touch(mode=0o600)
        if os.geteuid() == 0:
            found = pwd.getpwnam(_USER)
            os.chown(file, found.pw_uid, found.pw_gid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def seen(self) -> list[str]:
        """The keys so far, the first first; what is none of a kind that we take is left out."""
        found = []
        for line in (self.folder / "keys").read_text("utf-8", "replace").splitlines():
            try:
                found.append(ssh_keys(line))
            except UsageError:
                continue
        return found


def fingerprint(key: str) -> str:
    """The fingerprint of a line of authorized_keys, as `ssh-keygen -l` shows it on the other side."""
    try:
        return run("ssh-keygen", "-l", "-f", "-", given=f"{key}\n").stdout.split()[1]
    except (MachineError, IndexError):
        return "not readable"
