"""The users whose passcodes devices may send (PS3.7 D.3.3.7): `config/dicom-users.json`, hashed with scrypt."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from pathlib import Path

from pacs.errors import NotFound, SettingsError, UsageError
from pacs.storage import durable

# RFC 7914: 16 MiB and some 50 ms a passcode.
_COST, _BLOCK_SIZE, _PARALLEL = 1 << 14, 8, 1
PASSCODE_LENGTH_MIN = 8
#: One at a time: a peer that tries passcodes gets no more memory than that.
_hashing = threading.Lock()


class Users:
    """The users in an instance's data directory. Read anew at each question, so a change counts at once."""

    def __init__(self, data: Path) -> None:
        self.path = data / "config" / "dicom-users.json"

    def names(self) -> list[str]:
        """Everybody, in order. Raise SettingsError if the file cannot be read."""
        return sorted(self._read())

    def is_passcode(self, name: str, passcode: bytes) -> bool:
        """Whether this is the user's passcode."""
        kept = self._read().get(name)
        if kept is None:
            return False
        found = _digest(passcode, bytes.fromhex(kept["salt"]))
        return hmac.compare_digest(found, bytes.fromhex(kept["scrypt"]))

    def put(self, name: str, passcode: str) -> None:
        """Make a user known, or change the passcode. Raise UsageError for what cannot be one."""
        if not name.strip() or not name.isprintable() or len(name) > 64:
            raise UsageError("A user's name is 1 to 64 printable characters. Give another.")
        if len(passcode) < PASSCODE_LENGTH_MIN:
            raise UsageError(f"A passcode has at least {PASSCODE_LENGTH_MIN} characters. Give a longer one.")
        salt = secrets.token_bytes(16)
        users = self._read()
        users[name] = {"salt": salt.hex(), "scrypt": _digest(passcode.encode(), salt).hex()}
        self._write(users)

    def remove(self, name: str) -> None:
        """Forget a user. Raise NotFound."""
        users = self._read()
        if users.pop(name, None) is None:
            raise NotFound(f"There is no user {name}. `pacs dicom-user list` shows them.")
        self._write(users)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            users = json.loads(self.path.read_text("utf-8"))
            return {str(name): {"salt": kept["salt"], "scrypt": kept["scrypt"]} for name, kept in users.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(
                f"{self.path} cannot be read ({type(error).__name__}). Remove it, and add its users again."
            ) from error

    def _write(self, users: dict[str, dict[str, str]]) -> None:
        try:
            durable.replace_file(self.path, json.dumps(users, indent=1, sort_keys=True).encode())
        except OSError as error:
            raise durable.as_volume_error(error, self.path.parent) from error


def _digest(passcode: bytes, salt: bytes) -> bytes:
    with _hashing:
        return hashlib.scrypt(passcode, salt=salt, n=_COST, r=_BLOCK_SIZE, p=_PARALLEL, dklen=32)
