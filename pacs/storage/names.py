"""The names of objects' files, on volumes of every kind."""

from __future__ import annotations

import re
import secrets
from datetime import datetime

_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})-[0-9a-f]{12}\.dcm", re.ASCII)


def object_path(tenant_id: int, arrived: datetime, study_key: str, sha256: bytes) -> str:
    """A new path for an object, relative to its volume's root. No two calls give the same."""
    name = f"{sha256.hex()}-{secrets.token_hex(6)}.dcm"
    return f"objects/{tenant_id}/{arrived:%Y/%m/%d}/{study_key}/{name}"


def fresh_path(path: str) -> str:
    """A path like that of another copy of the object, that was never used."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('-')[0]}-{secrets.token_hex(6)}.dcm"


def sha256_in_name(path: str) -> bytes | None:
    """The digest that an object's file name states; None if it is not the name of an object."""
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return bytes.fromhex(match["sha256"]) if match else None
