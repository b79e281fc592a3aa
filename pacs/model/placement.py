"""Which of several volumes new bytes go to. Pure policy."""

from __future__ import annotations

from collections.abc import Mapping

#: The one that was chosen before stays until another has this many times its free room: a study is not strewn.
MUCH_MORE = 1.05


def choose(free_bytes: Mapping[str, int | None], last: str | None) -> str:
    """The name of the one with the most room, the last one as long as it has about as much. None knows no bound.

    `free_bytes` holds those that have room for what is to be placed; there must be one.
    """

    def free(name: str) -> float:
        known = free_bytes[name]
        return float("inf") if known is None else known

    best = max(sorted(free_bytes), key=free)
    if last is not None and last in free_bytes and free(best) <= free(last) * MUCH_MORE:
        return last
    return best
