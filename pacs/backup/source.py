"""The backup as a source of repair: an object's bytes by their digest, when no copy of it is left on the volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pacs.backup.repository import Repository
from pacs.settings import Settings


class BackupSource:
    """A repository as pacs/archive/repair.py asks it. Opened when it is needed: it may be away."""

    def __init__(self, root: Path) -> None:
        self.name = f"the backup at {root}"
        self._root = root

    def read(self, sha256: bytes) -> Iterator[bytes]:
        """The bytes of the object with this digest. Raise NotFound, or BackupError if the repository is not there."""
        yield from Repository(self._root).read_object(sha256)


def backup_sources(settings: Settings) -> list[BackupSource]:
    """What an instance can repair from beside its volumes."""
    return [BackupSource(settings.backup_repository)] if settings.backup_repository else []
