"""What is said of the vaults of a node."""

from __future__ import annotations

import pytest

from pacs.checks.vault import judged

GB = 10**9


@pytest.mark.parametrize(
    ("away_s", "free_bytes", "severity", "words"),
    [
        (10, 900 * GB, "ok", "connected; 900 GB"),
        (10, 5 * GB, "warning", "5 GB are free"),
        (None, 900 * GB, "warning", "never connected"),
        (7300, 900 * GB, "warning", "for 2 hours"),
        (90_000, 900 * GB, "critical", "for 25 hours"),
    ],
)
def test_an_owner_that_is_away_and_a_disk_that_fills(
    away_s: float | None, free_bytes: int, severity: str, words: str
) -> None:
    found, line = judged("safe", away_s, free_bytes)
    assert found == severity and words in line
