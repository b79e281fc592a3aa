"""Every object's turn comes within the month, whatever is missed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from pacs.model.drill_sample import Share, next_share

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
DIGESTS = [hashlib.sha256(bytes([n, m])).digest() for n in range(40) for m in range(50)]


def _in(share: Share, digest: bytes) -> bool:
    return any(first <= digest <= last for first, last in share.ranges())


@pytest.mark.parametrize("begin", [0, 1, 1 << 255, (1 << 256) - 1])
def test_all_are_taken_in_a_month_wherever_it_begins(begin: int) -> None:
    taken, ended, at = set[bytes](), begin, NOW
    for _night in range(30):
        share = next_share(ended, at, at + timedelta(days=1), 30)
        found = {digest for digest in DIGESTS if _in(share, digest)}
        assert 20 < len(found) < 120, "each night about as many"
        taken |= found
        ended, at = share.end, at + timedelta(days=1)
    assert taken == set(DIGESTS)


def test_a_missed_week_is_made_up_for() -> None:
    share = next_share(0, NOW, NOW + timedelta(days=8), 30)
    assert share.part == pytest.approx(8 / 30, rel=0.01)
    assert next_share(0, NOW, NOW + timedelta(days=300), 30).part == 1
    assert all(_in(next_share(5, NOW, NOW + timedelta(days=300), 30), digest) for digest in DIGESTS)


def test_a_drill_soon_after_another_takes_a_nights_share() -> None:
    assert next_share(7, NOW, NOW + timedelta(minutes=5), 30).part == pytest.approx(1 / 30, rel=0.01)
    assert next_share(0, None, NOW, 30).part == pytest.approx(1 / 30, rel=0.01)


def test_a_share_that_was_not_done_goes_on_behind_the_last() -> None:
    share = next_share(0, None, NOW, 30)
    done = sorted(digest for digest in DIGESTS if _in(share, digest))
    cut = share.until(done[3])
    assert [digest for digest in sorted(DIGESTS) if _in(cut, digest)] == done[:4]
    rest = next_share(cut.end, None, NOW, 30)
    assert not any(_in(rest, digest) for digest in done[:4])
    assert _in(rest, done[4])


def test_ranges_that_go_over_the_end() -> None:
    share = Share((1 << 256) - 10, 10)
    assert len(share.ranges()) == 2
    assert _in(share, b"\xff" * 32) and _in(share, b"\0" * 32)
    assert not _in(share, b"\x80" * 32)
    assert Share(10, 0).ranges() == [((10).to_bytes(32, "big"), b"\xff" * 32)]
    assert share.until(b"\xff" * 32).end == 0
