"""Where the files of a selftest are: in a folder of their own on the volumes, which nothing else looks at."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from pacs.archive.store import Store
from pacs.errors import PacsError
from pacs.model.record import IndexRecord
from pacs.storage.kinds import Volume

FOLDER = "selftest"


class SelftestStore(Store):
    """The receive path, into the selftest's folder."""

    def path_of(self, _record: IndexRecord, sha256: bytes) -> str:
        """A new path for an object."""
        return f"{FOLDER}/{sha256.hex()}-{secrets.token_hex(6)}.dcm"


def remove_files(volumes: Iterable[Volume]) -> list[str]:
    """Remove all files of selftests. Return what is left on volumes that are here, and why."""
    left = []
    for volume in volumes:
        try:
            for name in volume.names(FOLDER):
                volume.remove(f"{FOLDER}/{name}")
            left += [f"{volume.location}/{FOLDER}/{name}" for name in volume.names(FOLDER)]
        except PacsError as error:
            left.append(str(error))
    return left
