"""Whether a host is the one that it was: its key must be in known_hosts before anything is sent to it.

A key that is not known is taken only by a person's word, who has compared its fingerprint with the one on the
appliance's screen. A key that has changed is never taken here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from paramiko import MissingHostKeyPolicy

from pacs.errors import PacsError, UsageError

if TYPE_CHECKING:
    from paramiko import PKey, SSHClient

USERS_OWN = Path("~/.ssh/known_hosts")

#: Asks a person: host, kind of key, fingerprint → whether it is the right one.
Ask = Callable[[str, str, str], bool]


class UnknownHostKey(PacsError):
    """The host's key is not known. Compare it with the appliance's screen, then connect from a terminal."""

    exit_code = 20


class AskingPolicy(MissingHostKeyPolicy):
    """What becomes of a host whose key is not known. Without `ask` it is refused."""

    def __init__(self, known_hosts: Path, ask: Ask | None) -> None:
        self.known_hosts, self.ask = known_hosts, ask

    def missing_host_key(self, client: SSHClient, hostname: str, key: PKey) -> None:
        """paramiko's question; raise UnknownHostKey for no."""
        shown = fingerprint(key)
        if self.ask is None or not self.ask(hostname, key.get_name(), shown):
            raise UnknownHostKey(
                f"The key of {hostname} is not known: {key.get_name()} {shown}. On a terminal you are asked about it: "
                "`pacs fleet status`. Compare it with the appliance's screen."
            )
        client.get_host_keys().add(hostname, key.get_name(), key)
        remember(self.known_hosts, hostname, key)


def fingerprint(key: PKey) -> str:
    """A key's fingerprint as ssh and the appliance's screen show it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def remember(known_hosts: Path, hostname: str, key: PKey) -> None:
    """Add a key to the file, a line at its end as ssh does it. Raise UsageError if that cannot be."""
    try:
        known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(known_hosts, "a") as file:
            file.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")
        with contextlib.suppress(PermissionError):
            known_hosts.chmod(0o600)
    except OSError as error:
        raise UsageError(f"{known_hosts} cannot be written: {error.strerror}. Name another.") from error


def load(client: SSHClient, known_hosts: Path) -> None:
    """Give a client the keys of the file and of the system. Raise UsageError if one cannot be read."""
    for path in (Path("/etc/ssh/ssh_known_hosts"), known_hosts):
        try:
            if path.exists():
                client.load_system_host_keys(str(path))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}. Correct it.") from error
