"""Counts of what was measured, in classes: what percentiles are told from. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """How often a value was at most each bound, and more than the last."""

    def __init__(self, bounds: Sequence[float], counts: Sequence[int] | None = None, total: float = 0.0) -> None:
        """bounds: rising. counts: one for each bound, and one for what is beyond. total: the sum of all values."""
        self.bounds, self.total = tuple(bounds), total
        self.counts = list(counts) if counts is not None else [0] * (len(self.bounds) + 1)
        if len(self.counts) != len(self.bounds) + 1:
            raise ValueError("A histogram has a count for each of its bounds, and one more.")

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def cumulative(self) -> list[int]:
        """How many are at most each bound; the last counts all."""
        return list(accumulate(self.counts))
