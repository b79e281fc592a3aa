"""The keys of an appliance's repositories, kept in DATA/config/keys/, which nobody but the service may read.

They are made once and stay: what seals them for the repositories is another key, that of the recovery sheet, which can
be changed (pacs/backup/keys.py). Every repository holds them, sealed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pacs import clock
from pacs.errors import BackupError, DataTooNew
from pacs.storage import durable
from pacs.storage.crypt import key_of

FORMAT = 1
KEYRING_FILE = "keyring.json"


@dataclass(frozen=True)
class Keyring:
    """The keys. Each opens one kind of a repository's contents."""

    ring_id: str
    #: The two passwords of the rclone crypt remote that the objects are.
    objects_password: str = field(repr=False)
    objects_password2: str = field(repr=False)
    #: pgBackRest's repo-cipher-pass.
    pgbackrest_passphrase: str = field(repr=False)
    restic_password: str = field(repr=False)
    #: Seed of the Ed25519 key that signs recovery points, base64 of 32 bytes.
    signing_seed: str = field(repr=False)
    created: str = ""
    format: int = FORMAT

    @property
    def objects_key(self) -> bytes:
        """What objects are sealed with: 32 bytes."""
        return key_of(self.objects_password, self.objects_password2)

    @property
    def signing_key(self) -> bytes:
        """Seed of the Ed25519 key: 32 bytes."""
        return base64.b64decode(self.signing_seed)

    @classmethod
    def make(cls) -> Keyring:
        """New keys."""
        return cls(
            ring_id=str(uuid.uuid4()),
            objects_password=secrets.token_hex(24),
            objects_password2=secrets.token_hex(24),
            pgbackrest_passphrase=secrets.token_hex(32),
            restic_password=secrets.token_hex(32),
            signing_seed=base64.b64encode(secrets.token_bytes(32)).decode(),
            created=clock.now().isoformat(timespec="seconds"),
        )

    @classmethod
    def open(cls, data: Path) -> Keyring:
        """The keys of the instance in `data`; made if it has none. Raise BackupError if they cannot be read."""
        path = keys_folder(data) / KEYRING_FILE
        if not path.exists():
            make_folder(data)
            with contextlib.suppress(FileExistsError):  # another process was faster
                durable.create_file(path, cls.make().content(), mode=0o600)
        try:
            return cls.of(path.read_bytes())
        except OSError as error:
            raise BackupError(f"{path} cannot be read: {error.strerror}. It is the service's; say `chown`.") from error

    @classmethod
    def of(cls, content: bytes) -> Keyring:
        """The keys that a file holds. Raise BackupError if they are none, DataTooNew if a newer version wrote them."""
        try:
            found = json.loads(content)
            if found["format"] > FORMAT:
                raise DataTooNew("The keys are of a newer version. Boot the image that wrote them, or a newer one.")
            return cls(**found)
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(
                "The file of the keys is damaged. Take it back from a repository, by the sheet."
            ) from error

    def content(self) -> bytes:
        """What a file of them holds."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    def keep(self, data: Path) -> None:
        """Make them the keys of the instance in `data`: a restore's were unsealed."""
        make_folder(data)
        durable.replace_file(keys_folder(data) / KEYRING_FILE, self.content(), mode=0o600)


def keys_folder(data: Path) -> Path:
    """Where an instance's keys are."""
    return data / "config" / "keys"


def make_folder(data: Path) -> None:
    """Make the folder of the keys, if it is not there."""
    folder = keys_folder(data)
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.fsync_folder(folder.parent)
