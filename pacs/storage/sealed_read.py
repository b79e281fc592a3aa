"""A repository that is never written to: as a trial copy (trial.py) has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pacs.errors import PacsError, VolumeFailed
from pacs.storage.kinds import ToPut
from pacs.storage.sealed import SealedVolume

# ruff: noqa: ARG002 (what is refused is not looked at)


class ReadOnlySealed(SealedVolume):
    """An open repository that is only read."""

    def require_writable(self) -> None:
        """Raise VolumeFailed: it is only read."""
        self.require_present()
        raise self._refused()

    def put(self, path: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Raise VolumeFailed."""
        raise self._refused()

    def put_many(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        """Raise VolumeFailed."""
        raise self._refused()

    def remove(self, path: str) -> None:
        """Raise VolumeFailed."""
        raise self._refused()

    def quarantine(self, path: str) -> str:
        """Raise VolumeFailed."""
        raise self._refused()

    def replace_small(self, path: str, content: bytes) -> None:
        """Raise VolumeFailed."""
        raise self._refused()

    def _refused(self) -> VolumeFailed:
        return VolumeFailed(f"The repository at {self.location} is only read: this is a trial copy. Nothing is wrong.")
