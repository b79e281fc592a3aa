"""How programs of others log in to an SFTP repository: pgBackRest and restic want the key and the server's as files."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pacs.backup.repositories import Repository
from pacs.errors import SettingsError
from pacs.storage import durable


@dataclass(frozen=True)
class SftpLogin:
    """A login by key. path: the repository's folder on the server, below the user's own if it does not begin with /."""

    user: str
    host: str
    port: int
    path: str
    private_key: Path
    known_hosts: Path
    #: SHA-256 of the server's host key, hexadecimal.
    fingerprint: str

    @property
    def command(self) -> str:
        """The ssh command that opens the server's sftp subsystem."""
        options = (f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes",
                   "BatchMode=yes", "ServerAliveInterval=15")  # fmt: skip
        words = ["ssh", "-i", str(self.private_key), "-p", str(self.port), *(f"-o{each}" for each in options)]
        return shlex.join([*words, f"{self.user}@{self.host}", "-s", "sftp"])


def write_login(repository: Repository, folder: Path) -> SftpLogin:
    """Write the files of a login into a folder, for their owner only. Raise SettingsError if it is not by key."""
    place = urlsplit(repository.place)
    host, port, user = place.hostname or "", place.port or 22, unquote(place.username or "")
    try:
        login = tomllib.loads(repository.credentials.read_text("utf-8"))
    except (OSError, ValueError) as error:  # the parser's message may quote a line of the file
        raise SettingsError(
            f"{repository.credentials} cannot be read ({type(error).__name__}). Write it anew."
        ) from None
    if "private_key" not in login:
        raise SettingsError(
            f"Repository {repository.name}: the database's backup logs in to an SFTP server by key, not by password. "
            "Give the server a public key, and add the repository again with the private one."
        )
    known = str(repository.options.get("host_key", ""))
    try:
        digest = hashlib.sha256(base64.b64decode(known.split()[1])).hexdigest()
    except (IndexError, ValueError) as error:
        raise SettingsError(f"Repository {repository.name} knows no host key. Add it again.") from error
    shown = host if port == 22 else f"[{host}]:{port}"
    key, hosts = folder / f"{repository.name}.key", folder / f"{repository.name}.known_hosts"
    _write(key, login["private_key"].rstrip("\n") + "\n")
    _write(hosts, f"{shown} {known}\n")
    path = unquote(place.path)
    return SftpLogin(user, host, port, path.removeprefix("/~/").rstrip("/"), key, hosts, digest)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        if path.read_text("utf-8") == text:
            return
    durable.replace_file(path, text.encode(), 0o600)
