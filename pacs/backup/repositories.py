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
    folder: Path | None
    options: dict[str, Any] = field(default_factory=dict)
    window: str | None = None
    bandwidth_bytes_per_s: float | None = None
    keep_full: int = 2
    volume_id: str = ""


def repositories(data: Path) -> list[Repository]:
    """Stand-in."""
    found = []
    for path in sorted((data / "config" / "repositories").glob("*.toml")):
        text = tomllib.loads(path.read_text())
        found.append(Repository(path.stem, text["place"], text["kind"], Path(text["place"]), text.get("options", {})))
    return found
