"""Software RAIDs as the kernel tells of them in /sys/block/md*/md: no right of root's is needed, nothing is written.

Source: Linux, Documentation/admin-guide/md.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BLOCK = Path("/sys/block")
#: How many disks may be missing before an array has lost data; of raid1 all but one.
_SPARE_OF = {"raid1": None, "raid10": 1, "raid4": 1, "raid5": 1, "raid6": 2, "raid0": 0, "linear": 0}
_SECTOR_BYTES = 512
_NOT_RUNNING = ("clear", "inactive", "broken")
#: What an array may be at that copies onto a disk (`check` and `repair` only compare).
REBUILDING = ("recover", "resync", "reshape")


@dataclass(frozen=True)
class Member:
    """A disk of an array. slot: its place, None for a spare or one that failed; words: its state, in the kernel's."""

    disk: str
    slot: int | None
    words: frozenset[str]

    @property
    def has_failed(self) -> bool:
        """Whether the kernel has put it out of use."""
        return "faulty" in self.words

    @property
    def is_spare(self) -> bool:
        """Whether it waits for another one to fail. One that is being rebuilt has a place already."""
        return not self.has_failed and self.slot is None


@dataclass(frozen=True)
class Array:
    """An array. doing: idle, resync, recover, check, repair, reshape, frozen; speed in KiB a second, each disk's."""

    device: str
    level: str
    disks: int
    state: str
    missing: int
    doing: str
    done: int = 0
    whole: int = 0
    speed_kib_s: int = 0
    mismatches: int = 0
    last_done: str = ""
    size_bytes: int = 0
    members: tuple[Member, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether it can be read."""
        return self.state not in _NOT_RUNNING

    @property
    def may_fail(self) -> int:
        """How many more disks may fail before data is lost."""
        spare = _SPARE_OF.get(self.level, 0)
        return (self.disks - 1 if spare is None else spare) - self.missing

    @property
    def percent(self) -> float | None:
        """How far it is with what it does."""
        return 100 * self.done / self.whole if self.whole else None

    @property
    def left_s(self) -> float | None:
        """How long that goes on at this speed [s]."""
        if not self.whole or not self.speed_kib_s:
            return None
        return (self.whole - self.done) * _SECTOR_BYTES / 1024 / self.speed_kib_s


def arrays(block: Path | None = None) -> list[Array]:
    """Every array of this machine."""
    return [array_at(folder) for folder in sorted((block or BLOCK).glob("md*/md")) if (folder / "level").exists()]


def array_at(folder: Path) -> Array:
    """The array of a folder /sys/block/md*/md."""
    done, _, whole = _word(folder, "sync_completed").partition(" / ")
    return Array(
        folder.parent.name,
        _word(folder, "level"),
        _number(_word(folder, "raid_disks").split(" ")[0]),
        _word(folder, "array_state"),
        _number(_word(folder, "degraded")),
        _word(folder, "sync_action") or "idle",
        _number(done),
        _number(whole),
        _number(_word(folder, "sync_speed")),
        _number(_word(folder, "mismatch_cnt")),
        _word(folder, "last_sync_action"),
        _number(_word(folder.parent, "size")) * _SECTOR_BYTES,
        tuple(_member(each) for each in sorted(folder.glob("dev-*"))),
    )


def _member(folder: Path) -> Member:
    slot = _word(folder, "slot")
    words = frozenset(_word(folder, "state").split(",")) - {""}
    return Member(folder.name.removeprefix("dev-"), int(slot) if slot.isdigit() else None, words)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _word(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text("ascii").strip()
    except OSError:
        return ""
