"""What an instance keeps of its twin: of its standby, or of the archive that it is the standby of.

    DATA/config/standby/key, key.pub         this node's key, made once: with it it logs in at the twin
    DATA/config/standby/twin.json            who the twin is, and which of the two is the archive
    DATA/config/standby/database             which that is
    DATA/config/standby/credentials.toml     our key as a volume on an SFTP server wants it
    DATA/standby/authorized_keys             the twin's key, and what it may: SFTP, and the way to our database; not in
                                             config/, to which sshd's StrictModes objects
    DATA/config/standby/alone                there since a promotion, until the other node follows
    DATA/config/standby/following.json       there while this node is a standby: nothing but replication runs

The two exchange these by a text that a person carries, so that no password is ever typed. Nothing of it is in a backup
or goes to the twin: each node has its own.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pacs.archive.known_volumes import standby_folder
from pacs.errors import SettingsError, StandbyError, UsageError
from pacs.index.volumes import STANDBY_TIER, KnownVolume
from pacs.storage import durable

_PREFIX = "pacs-twin-1:"
Side = Literal["archive", "standby"]


@dataclass(frozen=True)
class OfferedVolume:
    """A volume on one of a node's disks. tier: 1 or 2, there."""

    volume_id: str
    tier: int
    path: str


@dataclass(frozen=True)
class Twin:
    """A node as it describes itself to the other."""

    name: str
    appliance_id: str
    user: str
    host: str
    port: int
    #: As a line of OpenSSH's known_hosts has it, without the host.
    host_key: str
    #: Of its own key: what it logs in with.
    public_key: str
    #: The socket of its database.
    database: str
    #: Of the software: both must have the same.
    version: str
    volumes: tuple[OfferedVolume, ...]

    def location(self, path: str) -> str:
        """A folder of it as a volume's location."""
        return f"sftp://{quote(self.user)}@{self.host}:{self.port}{quote(path)}"

    def options(self, home_tier: int) -> dict[str, Any]:
        """The options of a volume there."""
        return {"host_key": self.host_key, "home_tier": home_tier}

    def row(self, volume: OfferedVolume) -> KnownVolume:
        """One of its volumes as the archive's index knows it."""
        name = f"{self.name}-tier{volume.tier}-{volume.volume_id[:4]}"
        return KnownVolume(
            volume.volume_id, name, STANDBY_TIER, self.location(volume.path), "sftp", self.options(volume.tier)
        )

    def text(self) -> str:
        """The pairing text: what a person carries to the other node."""
        packed = zlib.compress(json.dumps(asdict(self), separators=(",", ":")).encode(), 9)
        check = zlib.crc32(packed).to_bytes(4, "big")
        return _PREFIX + base64.urlsafe_b64encode(check + packed).decode()

    @classmethod
    def of(cls, text: str) -> Twin:
        """The node that a pairing text describes. Raise UsageError if it is none, or not whole."""
        words = "".join(text.split())
        try:
            if not words.startswith(_PREFIX):
                raise ValueError("its beginning")
            packed = base64.urlsafe_b64decode(words.removeprefix(_PREFIX))
            if zlib.crc32(packed[4:]).to_bytes(4, "big") != packed[:4]:
                raise ValueError("its check sum")
            return _twin(json.loads(zlib.decompress(packed[4:])))
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise UsageError(
                f"This is no pairing text, or not all of it ({error}). Copy it whole, from {_PREFIX} to its end."
            ) from None


def _twin(values: dict[str, Any]) -> Twin:
    return Twin(**{**values, "volumes": tuple(OfferedVolume(**each) for each in values["volumes"])})


class StandbyFiles:
    """The files in DATA/config/standby, and the keys that sshd reads."""

    def __init__(self, data: Path) -> None:
        self.folder = standby_folder(data)
        self.key, self.credentials = self.folder / "key", self.folder / "credentials.toml"
        self.known_hosts = self.folder / "known_hosts"
        self._twin, self._following = self.folder / "twin.json", self.folder / "following.json"
        self._alone = self.folder / "alone"
        self._authorized, self._database = data / "standby" / "authorized_keys", self.folder / "database"

    def public_key(self) -> str:
        """This node's public key; made when there is none."""
        public = self.key.with_name("key.pub")
        if not public.exists():
            durable.make_folders(self.folder)
            self.folder.chmod(0o700)
            self.key.unlink(missing_ok=True)
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "pacs-standby", "-f", str(self.key)]
            done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise SettingsError(f"ssh-keygen failed: {done.stderr.strip()[-200:]}. Is openssh-client installed?")
        return " ".join(public.read_text("utf-8").split()[:2])

    def note_database(self, socket: str) -> None:
        """Note which socket the twin is let through to: that of this node's database."""
        durable.make_folders(self.folder)
        durable.replace_file(self._database, f"{socket}\n".encode())

    def twin(self) -> tuple[Twin, Side] | None:
        """The twin, and what it is; None if there is none. Raise SettingsError if the file cannot be read."""
        found = _read(self._twin)
        try:
            return (_twin(found["twin"]), found["side"]) if found is not None else None
        except (KeyError, TypeError) as error:
            raise SettingsError(f"{self._twin} cannot be used ({error!r}). Pair the two anew.") from error

    def keep(self, twin: Twin, side: Side) -> None:
        """Know a twin from now on, let it in, and be able to log in there."""
        self.public_key()
        login = f'private_key = """\n{self.key.read_text("utf-8").rstrip()}\n"""\n'
        durable.replace_file(self.credentials, login.encode(), 0o600)
        shown = twin.host if twin.port == 22 else f"[{twin.host}]:{twin.port}"
        durable.replace_file(self.known_hosts, f"{shown} {twin.host_key}\n".encode(), 0o600)
        database = self._database.read_text("utf-8").strip()
        durable.make_folders(self._authorized.parent)
        durable.replace_file(self._authorized, authorized_line(twin.public_key, database).encode(), 0o600)
        self.note_side(twin, side)

    def note_side(self, twin: Twin, side: Side) -> None:
        """Note what the twin is: the archive, or the standby."""
        durable.replace_file(self._twin, (json.dumps({"side": side, "twin": asdict(twin)}, indent=1) + "\n").encode())

    def forget(self) -> None:
        """Know no twin any more: it is not let in."""
        for path in (self._authorized, self._twin, self._alone, self.credentials, self.known_hosts):
            path.unlink(missing_ok=True)
        if self.folder.exists():
            durable.fsync_folder(self.folder)

    def following(self) -> str | None:
        """How far this node is as a standby: `copying` or `follows`; None if it is none."""
        found = _read(self._following)
        return None if found is None else str(found.get("step", "copying"))

    def put_following(self, step: Literal["copying", "follows"]) -> None:
        """Note that this node is a standby: no service starts on it."""
        durable.make_folders(self.folder)
        durable.replace_file(self._following, (json.dumps({"step": step}) + "\n").encode())

    def end_following(self) -> None:
        """This node is no standby any more: its services may start."""
        self._following.unlink(missing_ok=True)
        durable.fsync_folder(self.folder)

    def is_alone(self) -> bool:
        """Whether this node was promoted, and the other has not followed since."""
        return self._alone.exists()

    def note_alone(self, is_alone: bool) -> None:
        """Note that it is, or that the other follows."""
        if is_alone:
            durable.replace_file(self._alone, b"")
        else:
            self._alone.unlink(missing_ok=True)

    def ssh(self, twin: Twin, *options: str) -> list[str]:
        """The words of an ssh to the twin, by our key, that asks nobody anything."""
        fixed = (
            f"UserKnownHostsFile={self.known_hosts}", "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes", "BatchMode=yes", "ServerAliveInterval=3", "ServerAliveCountMax=3", "ConnectTimeout=5",
            *options,
        )  # fmt: skip
        return ["ssh", "-F", "/dev/null", "-i", str(self.key), "-p", str(twin.port), *(f"-o{each}" for each in fixed),
                f"{twin.user}@{twin.host}"]  # fmt: skip


def authorized_line(public_key: str, database: str) -> str:
    """What the twin may when it logs in: files, and the way to the socket of our database. No shell, no terminal, no
    port: a host that is a socket's path is none that TCP reaches."""
    words = public_key.split()
    if len(words) != 2 or not re.fullmatch(r"[a-z0-9@.-]+", words[0]) or not re.fullmatch(r"[A-Za-z0-9+/=]+", words[1]):
        raise UsageError("The pairing text holds no key. Copy it whole.")
    if not re.fullmatch(r"/[^\[\]\"\n]+", database):
        raise SettingsError(f"The database's socket {database} has a name that SSH cannot be told. Move it.")
    forwarding = f'port-forwarding,permitopen="[{database}]:*",permitlisten="127.0.0.1:9"'
    return f'restrict,{forwarding},command="internal-sftp -u 0027" {public_key} pacs-twin\n'


def require_no_standby(data: Path) -> None:
    """Raise StandbyError if this node is a standby: its database is the archive's, and nothing may use it."""
    if StandbyFiles(data).following() is not None:
        raise StandbyError(
            "This node is a standby: it copies another archive and serves nobody. `pacs standby status` shows it, "
            "`pacs standby promote` makes it the archive (docs/operate/standby.md)."
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read ({error}). Look at its disk.") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path} cannot be read. Pair the two anew (docs/operate/standby.md).")
    return found
