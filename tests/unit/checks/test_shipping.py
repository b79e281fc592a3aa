"""What is said of a repository that is behind."""

from __future__ import annotations

import pytest

from pacs.backup.repositories import Repository
from pacs.backup.shipping import Lag
from pacs.checks.shipping import judged

ANY_TIME = Repository("far", "/srv/far", "nfs")
AT_NIGHT = Repository("far", "/srv/far", "nfs", windows=("22:00-06:00",))


@pytest.mark.parametrize(
    ("repository", "lag", "severity", "words"),
    [
        (ANY_TIME, Lag(0, None, True), "ok", "nothing waits"),
        (ANY_TIME, Lag(9, 170.0, True), "ok", "9 objects wait, the oldest for 3 min"),
        (ANY_TIME, Lag(9, 190.0, True), "warning", "9 objects"),
        (ANY_TIME, Lag(10_000, 1900.0, False), "critical", "10000 or more objects"),
        (AT_NIGHT, Lag(9, 20 * 3600.0, True), "ok", "20 hours"),
        (AT_NIGHT, Lag(9, 27 * 3600.0, True), "warning", "27 hours"),
        (AT_NIGHT, Lag(9, 51 * 3600.0, True), "critical", "51 hours"),
        (ANY_TIME, Lag(0, None, True, "", 20.0), "warning", "away for 0 min"),
        (ANY_TIME, Lag(0, None, True, "Is it mounted?", 2000.0), "critical", "away for 33 min. Is it mounted?"),
        (AT_NIGHT, Lag(0, None, True, "", 2000.0), "critical", "away for 33 min"),
        (ANY_TIME, Lag(1, 5.0, True, "No room left."), "warning", "No room left."),
    ],
)
def test_how_bad_a_lag_is(repository: Repository, lag: Lag, severity: str, words: str) -> None:
    found, line = judged(repository, lag)
    assert found == severity and words in line
