"""What a drill found, and how that is told: on the screen, by `pacs check`, in a mail. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pacs.model.restore_progress import format_duration
from pacs.model.sizes import format_size


@dataclass
class DrillOutcome:
    """A drill: what it was made of, and what it found. What it differs in are objects whose bytes or answers are not
    those of the living archive."""

    repository: str = ""
    point: str = ""
    #: Moment of the point (ISO 8601), and how long it took until its archive answered queries [s].
    point_at: str = ""
    searchable_s: float = 0.0
    #: Objects that the restored index knows, and that the living one knew of these.
    known: int = 0
    #: Objects that were asked of it and compared.
    sampled: int = 0
    sampled_bytes: int = 0
    differ: int = 0
    #: Of the sampled: brought back onto a volume as a restore does it, and reconciled there.
    brought_back: int = 0
    #: The part of all objects that this and the drills before it took, since when (ISO 8601).
    share_begin: str = ""
    share_end: str = ""
    share_part: float = 0.0
    problems: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def is_proven(self) -> bool:
        """Whether it proves that a restore works."""
        return not self.error and not self.problems and self.differ == 0

    @property
    def words(self) -> str:
        """`1.2 million objects known, 400 sampled, 0 differ`."""
        return f"{_count(self.known)} objects known, {_count(self.sampled)} sampled, {_count(self.differ)} differ"

    @property
    def sentence(self) -> str:
        """The same with where it came from and how long it took."""
        return (
            f"Point {self.point} of {self.repository}: searchable after {format_duration(self.searchable_s)}; "
            f"{self.words} ({format_size(self.sampled_bytes)} read, {self.brought_back} brought back onto a volume)."
        )


def words_of(result: dict[str, Any]) -> str:
    """The same of a drill as its run's row has it."""
    return DrillOutcome(
        known=int(result.get("known", 0)), sampled=int(result.get("sampled", 0)), differ=int(result.get("differ", 0))
    ).words


def _count(number: int) -> str:
    """1.2 million, 12,345."""
    return f"{number / 1e6:.1f} million" if number >= 1_000_000 else f"{number:,}"
