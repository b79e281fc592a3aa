"""Stand-in until d-base."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Repository:
    """Stand-in."""

    name: str
    place: str
    kind: str
    volume_id: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    windows: tuple[str, ...] = ()
    bandwidth_bytes_per_s: int | None = None
    keep_full: int = 4
    credentials: Path = Path()

    @property
    def folder(self) -> Path | None:
        """Stand-in."""
        return Path(self.place) if self.kind in ("local", "nfs", "smb") else None


def repositories(data: Path) -> list[Repository]:
    """Stand-in."""
    found = []
    for path in sorted((data / "config" / "repositories").glob("*.toml")):
        text = tomllib.loads(path.read_text())
        found.append(Repository(path.stem, text["place"], text["kind"], "", text.get("options", {})))
    return found


def open_volume(repository: Repository, keyring: object, appliance_id: str | None = None) -> Any:
    """Stand-in."""
    from pacs.storage.files import LocalVolume

    assert repository.folder is not None
    return LocalVolume(repository.folder, "tier3")
