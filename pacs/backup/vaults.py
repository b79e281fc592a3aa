"""The vaults of an instance: repositories of other appliances, which it dials and keeps (docs/operate/vault.md).

    archive   offer: its address, host key, its key for the vault ─┐
    vault                              add: its own keys, address ◀┘─┐
    archive   repository add --pulled-by: the vault's key let in ◀───┘ … it has dialled: a repository as any other

DATA/config/vaults/<name>.toml holds what a person said of one, beside it <name>.known_hosts and <name>.seen, whose
time is when its owner was last connected; `key` is what this node logs in with, `host_key` what it shows the owners.
Each text holds public keys and an address: nothing secret.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pacs.backup.pairing_text import packed, unpacked
from pacs.backup.repositories import toml_word
from pacs.backup.ssh_process import SshLogin, make_key, require_key
from pacs.errors import NotFound, SettingsError, UsageError
from pacs.storage import durable
from pacs.storage.vault import VaultFolder

_OFFER, _ANSWER = "pacs-pull-1:", "pacs-vault-1:"
KEEP_DAYS = 90
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)


@dataclass(frozen=True)
class Offer:
    """An appliance that wants its repository kept: where its SSH server is, and the key that it will log in with."""

    user: str
    host: str
    port: int
    host_key: str
    public_key: str
    #: Where it would have its end of the way, on its own loopback.
    listen_port: int

    def text(self) -> str:
        """What a person carries to the vault."""
        return packed(_OFFER, asdict(self))

    @classmethod
    def of(cls, text: str) -> Offer:
        """Raise UsageError."""
        found: Offer = _made(cls, unpacked(_OFFER, text))
        return found


@dataclass(frozen=True)
class Answer:
    """A vault: the key that it dials with, the host key that it shows, from where it calls."""

    name: str
    public_key: str
    host_key: str
    address: str
    listen_port: int

    def text(self) -> str:
        """What a person carries to the appliance whose repository it is to be."""
        return packed(_ANSWER, asdict(self))

    @classmethod
    def of(cls, text: str) -> Answer:
        """Raise UsageError."""
        found: Answer = _made(cls, unpacked(_ANSWER, text))
        return replace(found, public_key=require_key(found.public_key), host_key=require_key(found.host_key))


@dataclass(frozen=True)
class Vault:
    """A vault as a person named it."""

    name: str
    place: str
    user: str
    host: str
    port: int
    host_key: str
    listen_port: int
    #: Of its owner: of the appliance, and of whatever was restored from here.
    keys: tuple[str, ...]
    #: How long is kept what its owner removes or writes over.
    keep_days: int = KEEP_DAYS
    is_paused: bool = False

    def open(self) -> VaultFolder:
        """Its folder. Raise VolumeMissing."""
        return VaultFolder(Path(self.place))


class VaultFiles:
    """The files in DATA/config/vaults."""

    def __init__(self, data: Path) -> None:
        self.folder = vaults_folder(data)
        self.key, self.host_key = self.folder / "key", self.folder / "host_key"

    def vaults(self) -> list[Vault]:
        """The vaults by name. Raise SettingsError if a file of them cannot be used."""
        return [self._read(path) for path in sorted(self.folder.glob("*.toml"))]

    def named(self, name: str) -> Vault:
        """One by its name. Raise NotFound."""
        for each in self.vaults():
            if each.name == name:
                return each
        raise NotFound(f"There is no vault {name}. `pacs vault list` shows them.")

    def add(self, name: str, text: str, place: Path | None, keep_days: int | None, address: str) -> Answer:
        """Keep the repository of the appliance of an offer; one that is known is dialled there from now on, and what
        is in it stays. Raise UsageError."""
        if not _NAME.fullmatch(name):
            raise UsageError("Its name is 1 to 32 small letters, digits and hyphens.")
        offer = Offer.of(text)
        known = next((each for each in self.vaults() if each.name == name), None)
        if known is None and place is None:
            raise UsageError("Where is it to be? Give --place: an empty folder, as that of a disk of its own.")
        if known is not None and place is not None and Path(known.place) != place:
            raise UsageError(f"{name} is at {known.place}. To move it: copy that folder, and edit its file.")
        where = place or Path(known.place if known else "")
        public_key = require_key(offer.public_key)
        dialled, shown = make_key(self.key, "pacs-vault"), make_key(self.host_key, "pacs-vault", "ecdsa")
        VaultFolder.make(where, name)
        vault = Vault(
            name, str(where), offer.user, offer.host, offer.port, require_key(offer.host_key),
            known.listen_port if known else offer.listen_port,
            tuple(dict.fromkeys((*(known.keys if known else ()), public_key))),
            keep_days or (known.keep_days if known else KEEP_DAYS),
        )  # fmt: skip
        self.keep(vault)
        return Answer(name, dialled, shown, address or _own_address(offer.host, offer.port), vault.listen_port)

    def keep(self, vault: Vault) -> None:
        """Write down what is known of a vault."""
        durable.make_folders(self.folder)
        self.login(vault).know(vault.host_key)
        lines = [f"{name} = {_toml(value)}" for name, value in asdict(vault).items() if name != "name"]
        durable.replace_file(self._file(vault.name), ("\n".join(lines) + "\n").encode(), 0o600)

    def forget(self, name: str) -> None:
        """Dial nobody for it any more. What is in it stays."""
        self.named(name)
        for path in (self._file(name), self._hosts(name), self._seen(name)):
            path.unlink(missing_ok=True)
        durable.fsync_folder(self.folder)

    def login(self, vault: Vault) -> SshLogin:
        """How its owner is dialled."""
        return SshLogin(vault.user, vault.host, vault.port, self.key, self._hosts(vault.name))

    def note_seen(self, name: str) -> None:
        """Its owner is connected."""
        self._seen(name).touch(mode=0o600)
        os.utime(self._seen(name))

    def seen_at_s(self, name: str) -> float | None:
        """When its owner was last connected [s since 1970]; None: never."""
        try:
            return self._seen(name).stat().st_mtime
        except FileNotFoundError:
            return None

    def _read(self, path: Path) -> Vault:
        try:
            values = tomllib.loads(path.read_text("utf-8"))
            return Vault(**{**values, "name": path.stem, "keys": tuple(values["keys"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"{path} cannot be used ({error}). Correct it, or add the vault anew.") from error

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def _hosts(self, name: str) -> Path:
        return self.folder / f"{name}.known_hosts"

    def _seen(self, name: str) -> Path:
        return self.folder / f"{name}.seen"


def vaults_folder(data: Path) -> Path:
    """Where the vaults of an instance are named."""
    return data / "config" / "vaults"


def fingerprint(host_key: str) -> str:
    """Of a key, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _own_address(host: str, port: int) -> str:
    """The address of this node from which it calls another; nothing is sent for it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[4])
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UsageError(
            f"{host} cannot be found ({error.strerror}). Say from where this node calls: --from."
        ) from None


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"This is no pairing text of this version ({error}). Make it anew there.") from None


def _toml(value: Any) -> str:
    return f"[{', '.join(map(toml_word, value))}]" if isinstance(value, list | tuple) else toml_word(value)
