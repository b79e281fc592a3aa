"""The names of objects' files, on volumes of every kind."""

from __future__ import annotations

import re
import secrets
from datetime import datetime

_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})(-[0-9a-f]{12}\.dcm|(-[0-9a-f]{12})?\.bin)", re.ASCII)
#: As rclone names a file that is sealed, and its name is not.
SEALED_SUFFIX = ".bin"


def object_path(tenant_id: int, arrived: datetime, study_key: str, sha256: bytes) -> str:
    """A new path for an object, relative to its volume's root. No two calls give the same."""
    name = f"{sha256.hex()}-{secrets.token_hex(6)}.dcm"
    return f"objects/{tenant_id}/{arrived:%Y/%m/%d}/{study_key}/{name}"


def repository_path(sha256: bytes) -> str:
    """Where a repository has an object: found by its digest alone."""
    name = sha256.hex()
    return f"objects/{name[:2]}/{name[2:4]}/{name}{SEALED_SUFFIX}"


def fresh_path(path: str) -> str:
    """A path like that of another copy of the object, that was never used."""
    folder, _, name = path.rpartition("/")
    stem, suffix = name.partition("-")[0].removesuffix(SEALED_SUFFIX), name[name.rfind(".") :]
    return f"{folder}/{stem}-{secrets.token_hex(6)}{suffix}"


def sha256_in_name(path: str) -> bytes | None:
    """The digest that an object's file name states; None if it is not the name of an object."""
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return bytes.fromhex(match["sha256"]) if match else None
