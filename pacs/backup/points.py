"""Recovery points."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Point:
    name: str
    at: datetime
    lsn: str
    segment: str
    label: str

    @property
    def timeline(self) -> int:
        return int(self.segment[:8], 16)
