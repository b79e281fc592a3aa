"""Where new bytes go."""

from __future__ import annotations

import pytest

from pacs.model.placement import choose


@pytest.mark.parametrize(
    ("free", "last", "chosen"),
    [
        ({"a": 10, "b": 20}, None, "b"),
        ({"a": 10, "b": 20}, "a", "b"),
        ({"a": 100, "b": 104}, "a", "a"),
        ({"a": 100, "b": 106}, "a", "b"),
        ({"a": 10, "b": 20}, "c", "b"),
        ({"a": 10, "b": None}, "a", "b"),
        ({"a": None, "b": None}, "b", "b"),
        ({"b": 7, "a": 7}, None, "a"),
        ({"a": 0}, "a", "a"),
    ],
)
def test_the_one_with_the_most_room_and_no_needless_change(
    free: dict[str, int | None], last: str | None, chosen: str
) -> None:
    assert choose(free, last) == chosen
