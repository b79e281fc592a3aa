"""Which objects a drill takes from the repository: a share each night, so that all were taken within a month. Pure.

Digests are spread evenly over all values. So a night's share is a range of them, and the next night goes on where it
ended: what arrives meanwhile needs no list, and a night that is missed is made up for by longer ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

_ALL = 1 << 256


@dataclass(frozen=True)
class Share:
    """Digests from `begin` on and before `end`, as numbers of 256 bits. It goes over the last value to the first."""

    begin: int
    end: int

    @property
    def part(self) -> float:
        """How much of all values it has: 0 to 1."""
        return ((self.end - self.begin) % _ALL or _ALL) / _ALL

    def ranges(self) -> list[tuple[bytes, bytes]]:
        """The digests in order: first and last (itself in) of one range, or of two."""
        if self.begin < self.end:
            return [(_digest(self.begin), _digest(self.end - 1))]
        found = [(_digest(self.begin), _digest(_ALL - 1))]
        return found if self.end == 0 else [*found, (_digest(0), _digest(self.end - 1))]

    def until(self, last: bytes) -> Share:
        """The same, ended behind a digest: no more of it was taken."""
        return Share(self.begin, (int.from_bytes(last, "big") + 1) % _ALL)


def _digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def next_share(ended: int, last_at: datetime | None, now: datetime, nights: int) -> Share:
    """Tonight's share, which goes on at `ended`: of `nights` one, or more if some were missed since last_at."""
    since = timedelta(days=1) if last_at is None else now - last_at
    missed = max(1.0, since / timedelta(days=1))
    size = min(_ALL, -(-_ALL * round(missed * 1000) // (nights * 1000)))
    return Share(ended % _ALL, (ended + size) % _ALL)
