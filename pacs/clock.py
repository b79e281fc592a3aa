"""The only place that asks what time it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The time now, in UTC, with its zone."""
    return datetime.now(UTC)


def monotonic_s() -> float:
    """Seconds of a clock that only goes forward, for measuring how long a thing took."""
    return time.monotonic()
