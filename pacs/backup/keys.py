"""The keys of the repositories: kept here, sealed in each repository by the key of the recovery sheet.

    recovery sheet (MasterKey) ── unlocks ─▶ keyring.json.bin ── holds ─▶ the keys of objects, database, configuration

`keyring.json.bin` is a file of an rclone crypt remote whose password is the sheet's key, so that rclone alone gets
from the sheet to every object. Rotating makes a new sheet and seals the same keys anew; the old sheet then opens
nothing that is in a repository, but does open copies of `keyring.json.bin` that somebody took before.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pacs.backup.master_key import MasterKey, MistypedKey
from pacs.errors import BackupError, NotFound, WrongKey
from pacs.storage import crypt, durable
from pacs.storage.keyring import Keyring, keys_folder, make_folder
from pacs.storage.kinds import Volume

__all__ = ["KEYRING_SEALED", "Keyring", "MasterKey", "MistypedKey", "master_key", "seal", "sealed_in", "unseal"]

#: In a repository: the keys, sealed by the sheet.
KEYRING_SEALED = "keyring.json.bin"
_MASTER_FILE = "sheet.key"


def master_key(data: Path) -> MasterKey:
    """The key of the instance's recovery sheet; made if there is none. Raise BackupError if it cannot be read."""
    path = keys_folder(data) / _MASTER_FILE
    if not path.exists():
        make_folder(data)
        with contextlib.suppress(FileExistsError):  # another process was faster
            durable.create_file(path, (MasterKey.make().text + "\n").encode(), mode=0o600)
    try:
        return MasterKey.typed(path.read_text("ascii"))
    except (OSError, ValueError, MistypedKey) as error:
        raise BackupError(
            f"{path} cannot be used ({error}). The repositories are as they were: remove it, and print a new sheet "
            "with `pacs backup keys rotate`."
        ) from error


def keep_master_key(data: Path, master: MasterKey) -> None:
    """Make a key that of the instance's recovery sheet."""
    make_folder(data)
    durable.replace_file(keys_folder(data) / _MASTER_FILE, (master.text + "\n").encode(), mode=0o600)


def seal(keyring: Keyring, master: MasterKey) -> bytes:
    """What `keyring.json.bin` holds."""
    return b"".join(crypt.seal([keyring.content()], crypt.key_of(master.text)))


def unseal(content: bytes, master: MasterKey) -> Keyring:
    """The keys that a repository's `keyring.json.bin` holds. Raise WrongKey if the sheet is not its."""
    try:
        opened = b"".join(crypt.unseal([content], crypt.key_of(master.text)))
    except crypt.Unreadable:
        raise WrongKey(
            f"The recovery sheet {master.key_id} does not open this repository; nothing was touched. Take the sheet "
            "that was printed last for the appliance that wrote it. If it is that one, the repository's "
            f"{KEYRING_SEALED} is damaged: another repository of the appliance has the same."
        ) from None
    return Keyring.of(opened)


def sealed_in(volume: Volume) -> bytes:
    """What a repository has as `keyring.json.bin`. Raise NotFound."""
    try:
        return volume.read_small(KEYRING_SEALED)
    except NotFound:
        raise NotFound(
            f"There is no {KEYRING_SEALED} at {volume.location}. Is it a repository? Its appliance writes it again "
            "by `pacs backup keys rotate`."
        ) from None
