"""Sizes as people write and read them. MB is 1000 × 1000 bytes as on a disk's label, MiB is 1024 × 1024."""

from __future__ import annotations

import re
from fractions import Fraction

from pacs.errors import UsageError

_FACTORS = {"": 1, "b": 1}
_FACTORS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", 1)}
_FACTORS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", 1)}
_WORDS = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,9})?)\s*(?P<unit>[a-z]{0,3})", re.ASCII)


def parse_size(words: str) -> int:
    """The bytes that `30MB`, `1.5 GiB` or `4096` say; the unit's case does not count. Raise UsageError."""
    match = _WORDS.fullmatch(words.strip().lower())
    if match is None or match["unit"] not in _FACTORS:
        raise UsageError(f"{words!r} is no size. Write 500kB, 30MB, 1.5TB, or 8GiB.")
    return round(Fraction(match["number"]) * _FACTORS[match["unit"]])


def format_size(size_bytes: float) -> str:
    """A size for a person: `0 bytes`, `1.5 GB`."""
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000 or unit == "PB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
