"""Stand-in until d-base."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Keyring:
    """Stand-in."""

    seed: bytes

    @classmethod
    def open(cls, data: Path) -> Keyring:
        """Stand-in."""
        return cls(b"x" * 32)

    @property
    def pgbackrest_passphrase(self) -> str:
        """Stand-in."""
        return hashlib.sha256(self.seed + b"p").hexdigest()

    @property
    def restic_password(self) -> str:
        """Stand-in."""
        return hashlib.sha256(self.seed + b"r").hexdigest()

    @property
    def signing_key(self) -> bytes:
        """Stand-in."""
        return hashlib.sha256(self.seed + b"s").digest()
