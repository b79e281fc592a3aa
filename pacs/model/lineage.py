"""Which archive the pieces belong to, and which of them went back in time. Pure: who reads and writes is elsewhere.

The state, and each volume, carry a mark: the archive's lineage id, its epoch, and a generation, which goes up by one
every few seconds. The state's mark is on its disk before any volume is given the same one, and what a volume has is
noted in the state only after it is on the volume's disk. So, whenever the power goes,

    a volume never has a mark that the state does not know of       else the state was put back to an earlier moment
    a volume never has an earlier mark than the state has noted     else the volume was put back

and no loss of power looks like either. The epoch goes up when a restore, a move, a promotion or a person says that this
node is the archive from now on: a node that meets a higher one than its own is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

#: Of the state's starts so many are kept; what is older than all of them is taken as known.
STARTS_MAX = 500

Kind = Literal["higher epoch", "beyond the state", "behind the state", "another lineage"]


@dataclass(frozen=True)
class Mark:
    """What a volume, or a repository, carries. `writer` is an id of the worker's start that wrote it."""

    lineage_id: str
    epoch: int
    generation: int = 0
    writer: str = ""
    #: When it was written, ISO 8601, for a person.
    at: str = ""
    #: The timeline that the database's log was on; 0: not known.
    timeline: int = 0


@dataclass(frozen=True)
class Start:
    """A start of the worker, and the first generation that it wrote."""

    writer: str
    generation: int


@dataclass(frozen=True)
class Place:
    """Something that carries a mark, and the generation that the state knows to be on its disk."""

    name: str
    kind: str
    location: str
    generation: int = 0


@dataclass(frozen=True)
class State:
    """What the state knows of the lineage."""

    lineage_id: str
    epoch: int
    generation: int = 0
    at: str = ""
    starts: tuple[Start, ...] = ()
    #: By volume id.
    places: Mapping[str, Place] = field(default_factory=dict)
    #: Marks that it did not know, and that were dealt with: they stand where nothing is written over them.
    settled: tuple[str, ...] = ()
    #: Lineages that it had: the volumes of an appliance that an archive was restored onto carry them yet.
    former: tuple[str, ...] = ()
    timeline: int = 0

    @property
    def mark(self) -> Mark:
        """What is written to the volumes."""
        writer = self.starts[-1].writer if self.starts else ""
        return Mark(self.lineage_id, self.epoch, self.generation, writer, self.at, self.timeline)

    def knows(self, mark: Mark) -> bool:
        """Whether it has written such a mark."""
        if mark.generation > self.generation:
            return False
        if not self.starts or mark.generation < self.starts[0].generation:
            return mark.generation == 0 or len(self.starts) >= STARTS_MAX
        written_by = [start.writer for start in self.starts if start.generation <= mark.generation][-1]
        return mark.writer == written_by

    def next(self, writer: str, at: str, above: int = 0) -> State:
        """The state that is written before the next marks. above: a generation that it is to be beyond."""
        generation, starts = max(self.generation, above) + 1, self.starts
        if not starts or starts[-1].writer != writer:
            starts = (*starts, Start(writer, generation))[-STARTS_MAX:]
        return replace(self, generation=generation, starts=starts, at=at)


@dataclass(frozen=True)
class Finding:
    """That a place does not fit, in words for a person."""

    kind: Kind
    place: str
    message: str
    #: What the place has.
    epoch: int = 0
    timeline: int = 0


def judge(state: State, place_id: str, name: str, mark: Mark | None) -> Finding | None:
    """What a place's mark says; None if it fits. mark None: it has none, as one that is new."""
    known = state.places.get(place_id)
    least = known.generation if known else 0
    if mark is None:
        if least == 0:
            return None
        words = f"{name} has lost its mark: it was put back to an earlier moment, or emptied"
        return Finding("behind the state", name, words)
    if settled_name(mark) in state.settled or mark.lineage_id in state.former:
        return None
    if mark.lineage_id != state.lineage_id:
        words = f"{name} is of another archive (lineage {mark.lineage_id}, this is {state.lineage_id})"
        return Finding("another lineage", name, words)
    if mark.epoch > state.epoch:
        words = (
            f"{name} has epoch {mark.epoch}, this node has {state.epoch}: another node has taken over this archive "
            f"({mark.at or 'at an unknown time'})"
        )
        return Finding("higher epoch", name, words, mark.epoch)
    if mark.epoch == state.epoch and not state.knows(mark):
        words = (
            f"{name} was written last at {mark.at or 'an unknown time'} (generation {mark.generation}), of which the "
            f"state's disk knows nothing: it is of {state.at or 'before'} (generation {state.generation})"
        )
        return Finding("beyond the state", name, words, mark.epoch, mark.timeline)
    if mark.generation < least:
        words = f"{name} is of {mark.at} (generation {mark.generation}), and had generation {least} before"
        return Finding("behind the state", name, words)
    return None


def settled_name(mark: Mark) -> str:
    """What tells a mark from all others."""
    return f"{mark.lineage_id}/{mark.epoch}/{mark.generation}/{mark.writer}"


def state_values(state: State) -> dict[str, Any]:
    """A state as JSON has it."""
    return asdict(state)


def state_of(values: Mapping[str, Any]) -> State:
    """The state of such values. Raise KeyError, TypeError or ValueError if they are none."""
    return State(
        lineage_id=str(values["lineage_id"]), epoch=int(values["epoch"]), generation=int(values["generation"]),
        at=str(values["at"]), starts=tuple(Start(**each) for each in values["starts"]),
        places={key: Place(**each) for key, each in values["places"].items()},
        settled=tuple(map(str, values.get("settled", ()))), former=tuple(map(str, values.get("former", ()))),
        timeline=int(values.get("timeline", 0)),
    )  # fmt: skip


def mark_values(mark: Mark) -> dict[str, Any]:
    """A mark as JSON has it: in a file of its own on a volume, among others in a repository's."""
    return asdict(mark)


def mark_of(values: Mapping[str, Any]) -> Mark:
    """The mark in such values, whatever else is among them. Raise KeyError, TypeError or ValueError if it is none."""
    return Mark(
        lineage_id=str(values["lineage_id"]), epoch=int(values["epoch"]), generation=int(values.get("generation", 0)),
        writer=str(values.get("writer", "")), at=str(values.get("at", "")), timeline=int(values.get("timeline", 0)),
    )  # fmt: skip
