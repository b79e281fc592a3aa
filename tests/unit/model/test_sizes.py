"""Sizes as people write them, and back."""

from __future__ import annotations

import pytest

from pacs.errors import UsageError
from pacs.model.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("words", "size_bytes"),
    [
        ("0", 0), ("4096", 4096), ("12 b", 12), ("500kB", 500_000), ("30MB", 30_000_000), ("30mb", 30_000_000),
        ("30MiB", 30 << 20), ("1.5 TB", 1_500_000_000_000), ("8GiB", 8 << 30), ("0.1MB", 100_000), (" 2PiB ", 2 << 50),
    ],
)  # fmt: skip
def test_a_size_is_read(words: str, size_bytes: int) -> None:
    assert parse_size(words) == size_bytes


@pytest.mark.parametrize("words", ["", "MB", "-1MB", "1,5GB", "30 MBit", "30M", "1e9", "٣MB", "30MB/s", "9" * 400])
def test_what_is_no_size_is_refused_with_how_to_write_one(words: str) -> None:
    with pytest.raises(UsageError, match="Write 500kB"):
        parse_size(words)


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_500_000_000, "1.5 GB"), (10**16, "10.0 PB")],
)
def test_a_size_is_written(size_bytes: int, words: str) -> None:
    assert format_size(size_bytes) == words
