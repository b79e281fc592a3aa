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

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pacs.archive.known_volumes import standby_folder
from pacs.backup.pairing_text import packed, unpacked
from pacs.backup.ssh_process import SshLogin, login_of, make_key, require_key
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
        return packed(_PREFIX, asdict(self))

    @classmethod
    def of(cls, text: str) -> Twin:
        """The node that a pairing text describes. Raise UsageError if it is none, or not whole."""
        try:
            return _twin(unpacked(_PREFIX, text))
        except (KeyError, TypeError) as error:
            raise UsageError(f"This is no pairing text of this version ({error}). Make it anew there.") from None


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
        return make_key(self.key, "pacs-standby")

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
        durable.replace_file(self.credentials, login_of(self.key), 0o600)
        self.login(twin).know(twin.host_key)
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

    def login(self, twin: Twin) -> SshLogin:
        """How we log in at the twin."""
        return SshLogin(twin.user, twin.host, twin.port, self.key, self.known_hosts)


def authorized_line(public_key: str, database: str) -> str:
    """What the twin may when it logs in: files, and the way to the socket of our database. No shell, no terminal, no
    port: a host that is a socket's path is none that TCP reaches."""
    public_key = require_key(public_key)
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
