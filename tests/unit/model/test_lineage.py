"""The rules of marks: a power cut at any moment looks like nothing, whatever was put back looks like it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

import pytest

from pacs.model.lineage import (
    STARTS_MAX,
    Mark,
    Place,
    Start,
    State,
    judge,
    mark_of,
    mark_values,
    state_of,
    state_values,
)

VOLUMES = ("a", "b")


@dataclass
class Disks:
    """A node's disks: the state's, and two volumes'. `writes` is how many writes the power lasts for."""

    state: State = field(default_factory=lambda: State("l", 1))
    marks: dict[str, Mark | None] = field(default_factory=lambda: dict.fromkeys(VOLUMES))
    noted: dict[str, Place] = field(default_factory=dict)
    writes: int = 1_000_000

    def beat(self, writer: str) -> None:
        """One turn, as the worker takes it: the state first, then each volume, noted with the next turn's state."""
        state = replace(self.state, places={**self.state.places, **self.noted}).next(writer, "now")
        self._write()
        self.state = state
        for key in VOLUMES:
            self._write()
            self.marks[key] = state.mark
            self.noted[key] = Place(key, "local", "", state.generation)

    def _write(self) -> None:
        if self.writes == 0:
            raise OSError("the power is off")
        self.writes -= 1

    def after_power_cut(self) -> Disks:
        """What is on the disks: what was noted in memory only is gone."""
        return Disks(self.state, dict(self.marks))

    def findings(self) -> list[str]:
        found = [judge(self.state, key, key, mark) for key, mark in self.marks.items()]
        return [each.kind for each in found if each is not None]


def test_the_power_may_go_at_any_write() -> None:
    for writes in range(12):
        disks = Disks(writes=writes)
        for writer in ("start 1", "start 2", "start 3"):
            try:
                for _turn in range(4):
                    assert disks.findings() == []
                    disks.beat(writer)
            except OSError:
                pass
            disks = disks.after_power_cut()
            assert disks.findings() == [], f"after {writes} writes of {writer}"
            disks.writes = writes


def test_whatever_was_put_back_is_seen() -> None:
    moments = []
    disks = Disks()
    for writer in ("start 1", "start 2"):
        for _turn in range(3):
            disks.beat(writer)
            moments.append(disks.after_power_cut())
        disks = disks.after_power_cut()
    for state, a, b in product(range(len(moments)), repeat=3):
        put = Disks(moments[state].state, {"a": moments[a].marks["a"], "b": moments[b].marks["b"]})
        # What a state has surely noted is the turn before, at a start the one before that.
        least = state - 1 if state != 3 else state - 2
        behind = [at for at in (a, b) if at < least]
        beyond = [at for at in (a, b) if at > state]
        assert put.findings().count("beyond the state") == len(beyond), (state, a, b)
        assert put.findings().count("behind the state") == len(behind), (state, a, b)


def test_a_branch_that_went_on_elsewhere_is_seen_however_far_it_came() -> None:
    """A disk that was away while the state was put back, and comes when the state has gone further than it had."""
    disks = Disks()
    disks.beat("start 1")
    old = disks.after_power_cut()
    for _turn in range(3):
        disks.beat("start 2")
    away = disks.marks["b"]
    for _turn in range(20):
        old.beat("start 3")
    assert old.state.generation > (away.generation if away else 0)
    found = judge(old.state, "b", "b", away)
    assert found is not None and found.kind == "beyond the state"
    # Two nodes that go on from one copy are told apart by who wrote.
    twin = replace(old.state.mark, writer="start 4")
    found = judge(old.state, "b", "b", twin)
    assert found is not None and found.kind == "beyond the state"


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        (Mark("l", 2), None),
        (Mark("l", 1, 99, "of before the restore"), None),
        (Mark("l", 3), "higher epoch"),
        (Mark("x", 1), "another lineage"),
        (Mark("x", 9), "another lineage"),
        (Mark("former", 9), None),
        (None, None),
    ],
)
def test_epochs_and_lineages(mark: Mark | None, kind: str | None) -> None:
    state = State("l", 2, 0, former=("former",))
    found = judge(state, "v", "volume v", mark)
    assert (found.kind if found else None) == kind
    if found is not None and mark is not None:
        assert "volume v" in found.message


def test_a_mark_that_is_gone_was_put_back_too() -> None:
    state = State("l", 1, 7, places={"v": Place("v", "local", "/v", 6)})
    found = judge(state, "v", "volume v", None)
    assert found is not None and found.kind == "behind the state"


def test_starts_are_kept_up_to_a_number_and_what_is_older_is_known() -> None:
    state = State("l", 1)
    for number in range(STARTS_MAX + 10):
        state = state.next(f"start {number}", "now")
    assert len(state.starts) == STARTS_MAX
    assert state.knows(Mark("l", 1, 3, "start 2"))
    assert not state.knows(Mark("l", 1, STARTS_MAX, "nobody"))


def test_they_come_back_from_json_as_they_were() -> None:
    state = State("l", 3, 9, "t", (Start("w", 4),), {"v": Place("v", "local", "/v", 8)}, ("s",), ("f",))
    assert state_of(state_values(state)) == state
    assert mark_of({**mark_values(state.mark), "format": 1, "else": "what"}) == state.mark
    with pytest.raises((KeyError, ValueError)):
        mark_of({"lineage_id": "l", "epoch": "one"})
