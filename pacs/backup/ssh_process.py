"""An ssh that carries a socket for as long as we live: of a standby to its archive, of a vault to its owners.

It logs in by a key of ours at a server whose key is known, asks nobody anything, and ends with its thread.
"""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import SettingsError, UsageError
from pacs.storage import durable

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class SshLogin:
    """How we log in at a server. key, known_hosts: files."""

    user: str
    host: str
    port: int
    key: Path
    known_hosts: Path

    def know(self, host_key: str) -> None:
        """Write down the server's key, as a line of OpenSSH's known_hosts has it without the host."""
        shown = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        durable.replace_file(self.known_hosts, f"{shown} {host_key}\n".encode(), 0o600)

    def words(self, *options: str) -> list[str]:
        """The words of an ssh; the last one is the server."""
        fixed = (
            f"UserKnownHostsFile={self.known_hosts}", "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes", "BatchMode=yes", "ServerAliveInterval=3", "ServerAliveCountMax=3", "ConnectTimeout=5",
            *options,
        )  # fmt: skip
        return ["ssh", "-F", "/dev/null", "-i", str(self.key), "-p", str(self.port), *(f"-o{each}" for each in fixed),
                f"{self.user}@{self.host}"]  # fmt: skip


class SshProcess:
    """An ssh without a command, for its forwarding. For one thread, which must outlive it."""

    def __init__(self, login: SshLogin, options: Sequence[str], forward: Sequence[str]) -> None:
        *words, server = login.words("ExitOnForwardFailure=yes", *options)
        self._words = [*words, "-N", *forward, server]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin; that it runs does not say that it has reached anybody."""
        self._process = subprocess.Popen(
            self._words, preexec_fn=_end_with_us,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def is_running(self) -> bool:
        """Whether it runs yet."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> str:
        """End it; return what it said last."""
        process, self._process = self._process, None
        if process is None:
            return ""
        process.terminate()
        _out, said = process.communicate(timeout=20)
        return " ".join(said.split())[-200:]


def make_key(key: Path, comment: str, kind: str = "ed25519") -> str:
    """The public half of a key of ours, as `type base64`; made when there is none."""
    public = key.with_name(f"{key.name}.pub")
    if not public.exists():
        durable.make_folders(key.parent)
        key.parent.chmod(0o700)
        key.unlink(missing_ok=True)
        words = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(key)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise SettingsError(f"ssh-keygen failed: {done.stderr.strip()[-200:]}. Is openssh-client installed?")
    return " ".join(public.read_text("utf-8").split()[:2])


def require_key(public_key: str) -> str:
    """A public key that stands in a pairing text; raise UsageError unless it is one, and nothing beside."""
    words = public_key.split()
    if len(words) != 2 or not re.fullmatch(r"[a-z0-9@.-]+", words[0]) or not re.fullmatch(r"[A-Za-z0-9+/=]+", words[1]):
        raise UsageError("The pairing text holds no key. Copy it whole.")
    return " ".join(words)


def login_of(key: Path) -> bytes:
    """A key of ours as a volume on an SFTP server wants its login."""
    return f'private_key = """\n{key.read_text("utf-8").rstrip()}\n"""\n'.encode()


def _end_with_us() -> None:
    """In the child, before it is ssh: prctl(2). Not by setpriv(1), which sets capabilities anew whatever it is asked
    for, and the unit's sandbox lets nobody do that."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
