"""Which disks become volumes, and which volumes are taken: pure policy, no I/O.

What it promises: a disk is claimed only if it is blank, in a virtual machine or named by a person, and as long as this
system disk never had volumes; a set of volumes is taken only whole; of two sets with data none is taken unless an
administrator chose. A set is the volumes with one appliance id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pacs.machine.records import Member, SetRecord, SystemRecord
from pacs.storage.volume import VolumeIdentity

GIB = 1 << 30
_SETTING_GONE = (
    "This appliance ran without volumes, and the setting that allows it is gone. Set PACS_MACHINE_WITHOUT_VOLUMES=1 "
    "in /etc/pacs/machine.env, or import the appliance anew."
)


@dataclass(frozen=True)
class Volume:
    """A volume found on a disk. `record`: what the state volume says of its set; None on the others."""

    identity: VolumeIdentity
    has_data: bool
    record: SetRecord | None = None


@dataclass(frozen=True)
class Disk:
    """A disk that is not the system's.

    blank: zeros where anything would begin. unsigned: without a known signature or partitions, zeros or not.
    fs_uuid, label: of the ext4 file system that fills it, else empty. hardware: what names the disk as long as nobody
    rewires the machine. problem: it looks like one of ours and cannot be read.
    """

    path: str
    size_bytes: int
    hardware: str = ""
    blank: bool = False
    unsigned: bool = False
    fs_uuid: str = ""
    volume: Volume | None = None
    problem: str = ""
    label: str = ""
    of_stopped_raid: bool = False


@dataclass(frozen=True)
class Situation:
    """Where the appliance runs and what it may. folders_have_data: of an appliance without volumes.

    named: the paths of the disks that a person has named for claiming, and no others. keeps_blank: blank disks are kept
    for something else, a RAID say, and claimed only if they are named.
    """

    virtual_machine: bool
    without_volumes: bool = False
    folders_have_data: bool = False
    minimum_size_bytes: int = GIB
    named: frozenset[str] = frozenset()
    keeps_blank: bool = False


@dataclass(frozen=True)
class Adopt:
    """Take this set: mount each member's file system. `disks` maps a file system's UUID to its disk."""

    appliance_id: str
    members: tuple[Member, ...]
    disks: dict[str, Disk]
    offered: tuple[Disk, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """Make volumes of these disks: each with its roles."""

    disks: tuple[tuple[Disk, tuple[str, ...]], ...]
    offered: tuple[Disk, ...] = ()


@dataclass(frozen=True)
class UseFolders:
    """Run without volumes, in folders on the system disk."""

    offered: tuple[Disk, ...] = ()


@dataclass(frozen=True)
class Refuse:
    """Don't start. Each problem says what is wrong and what to do."""

    problems: tuple[str, ...]
    offered: tuple[Disk, ...] = ()


Plan = Adopt | Claim | UseFolders | Refuse


@dataclass
class _Set:
    """The volumes found of one appliance."""

    appliance_id: str
    disks: list[Disk] = field(default_factory=list)

    @property
    def has_data(self) -> bool:
        return any(disk.volume and disk.volume.has_data for disk in self.disks)

    @property
    def record(self) -> SetRecord | None:
        return next((disk.volume.record for disk in self.disks if disk.volume and disk.volume.record), None)

    def describe(self) -> str:
        where = ", ".join(sorted(disk.path for disk in self.disks))
        return f"appliance {self.appliance_id} on {where} ({'with data' if self.has_data else 'empty'})"


def plan(disks: list[Disk], known: SystemRecord | None, situation: Situation) -> Plan:
    """What to do with these disks, on a system disk that remembers `known`."""
    if twins := _twins(disks):
        return Refuse(twins)
    if known and known.claiming:
        finished = [one for one in _sets(disks) if one.appliance_id == known.appliance_id and one.record]
        if not finished:
            disks = [_as_if_blank(disk, known) for disk in disks]
        known = replace(known, claiming=False) if finished else None
    sets, blank = _sets(disks), _blank(disks, situation)
    if known and known.folders:
        return _with_folders(known, sets, blank, situation)
    if known:
        return _with_known(known, sets, blank, disks)
    return _first_boot(sets, blank, disks, situation)


def _first_boot(sets: list[_Set], blank: list[Disk], disks: list[Disk], situation: Situation) -> Plan:
    with_data = [one for one in sets if one.has_data]
    candidates = with_data or sets
    if len(candidates) > 1:
        return Refuse(_which_of(candidates), tuple(blank))
    if candidates:
        return _whole(candidates[0], (), blank, disks, _left_alone(sets, candidates[0]))
    if unreadable := _unreadable(disks):
        return Refuse(unreadable, tuple(blank))
    if situation.named:
        wanted = [disk for disk in blank if disk.path in situation.named]
        return _claim(wanted, [disk for disk in blank if disk not in wanted])
    if blank and situation.virtual_machine and not situation.keeps_blank:
        return _claim(blank)
    if situation.without_volumes:
        return UseFolders(tuple(blank))
    return Refuse((_nothing_to_use(blank, situation),), tuple(blank))


def _with_known(known: SystemRecord, sets: list[_Set], blank: list[Disk], disks: list[Disk]) -> Plan:
    """This system disk had volumes: it takes them, all of them, or gives way to a set with data if they are empty."""
    own = next((one for one in sets if one.appliance_id == known.appliance_id), _Set(known.appliance_id))
    others = [one for one in sets if one is not own and one.has_data]
    taken = _whole(own, known.members, blank, disks, _left_alone(sets, own))
    if not others or known.chosen or isinstance(taken, Refuse):
        if isinstance(taken, Refuse) and others:
            found = "; ".join(one.describe() for one in others)
            return replace(taken, problems=(*taken.problems, f"Attached instead: {found}. {_how_to_choose()}"))
        return taken
    if own.has_data or len(others) > 1:
        return Refuse(_which_of([own, *others] if own.has_data else others), tuple(blank))
    return _whole(others[0], (), blank, disks, _left_alone(sets, others[0]))


def _with_folders(known: SystemRecord, sets: list[_Set], blank: list[Disk], situation: Situation) -> Plan:
    with_data = [one for one in sets if one.has_data]
    if with_data and not known.chosen:
        if situation.folders_have_data or len(with_data) > 1:
            found = "; ".join(one.describe() for one in with_data)
            problem = f"The data of this appliance is on its system disk, and volumes with data are attached: {found}."
            return Refuse((f"{problem} Detach them, or import the appliance anew.",), tuple(blank))
        return _whole(with_data[0], (), blank, with_data[0].disks, ())
    if not situation.without_volumes:
        return Refuse((_SETTING_GONE,), tuple(blank))
    return UseFolders(tuple(blank))


def _whole(
    wanted: _Set, remembered: tuple[Member, ...], blank: list[Disk], disks: list[Disk], notes: tuple[str, ...]
) -> Plan:
    """Adopt a set if every volume of it is here."""
    record = wanted.record
    members = {member.volume_id: member for member in (*remembered, *(record.members if record else ()))}
    here = {disk.fs_uuid: disk for disk in wanted.disks}
    missing = [member for member in members.values() if member.fs_uuid not in here]
    attached = {disk.fs_uuid for disk in disks if disk.problem}  # and told of below, in words of its own
    problems = [_is_missing(member, wanted.appliance_id) for member in missing if member.fs_uuid not in attached]
    if record is None and not attached and not any("state" in member.roles for member in missing):
        problems.append(
            f"The state volume of appliance {wanted.appliance_id} is missing; only "
            f"{', '.join(sorted(disk.path for disk in wanted.disks))} is here. Attach its disk and start again."
        )
    if missing or record is None:
        return Refuse((*problems, *_unreadable(disks)), tuple(blank))
    return Adopt(wanted.appliance_id, tuple(members.values()), here, tuple(blank), notes)


def _claim(blank: list[Disk], others: Sequence[Disk] = ()) -> Claim:
    """Smallest first: state, tier 1, tier 2. Of two, the smaller is state and tier 1; of one, there is no tier 2."""
    taken = blank[:3]
    roles: list[tuple[str, ...]] = [("state",), ("tier1",), ("tier2",)]
    if len(taken) < 3:
        roles = [("state", "tier1"), ("tier2",)]
    return Claim(tuple(zip(taken, roles, strict=False)), (*blank[3:], *others))


def _sets(disks: list[Disk]) -> list[_Set]:
    sets: dict[str, _Set] = {}
    for disk in disks:
        if disk.volume:
            appliance_id = disk.volume.identity.appliance_id
            sets.setdefault(appliance_id, _Set(appliance_id)).disks.append(disk)
    return list(sets.values())


def _blank(disks: list[Disk], situation: Situation) -> list[Disk]:
    found = [disk for disk in disks if disk.blank and disk.size_bytes >= situation.minimum_size_bytes]
    return sorted(found, key=lambda disk: (disk.size_bytes, disk.path))


def _as_if_blank(disk: Disk, cut_short: SystemRecord) -> Disk:
    """A disk that a claim was working on when it was cut short: nothing was ever stored on it.

    A claim ends with the state volume's identity file, and that one isn't there. Known again by the file system's
    UUID, which this claim or one cut short before it chose, or, cut short inside of mkfs, by the place where it is
    plugged in.
    """
    if disk.volume and disk.volume.has_data:
        return disk
    if disk.fs_uuid in cut_short.hardware or (disk.unsigned and disk.hardware in cut_short.hardware.values()):
        return replace(disk, blank=True, volume=None, problem="")
    return disk


def _twins(disks: list[Disk]) -> tuple[str, ...]:
    counts = Counter(disk.fs_uuid for disk in disks if disk.volume)
    return tuple(
        "The same volume is attached more than once: "
        + " and ".join(disk.path for disk in disks if disk.fs_uuid == fs_uuid)
        + ". Detach the copy and start again."
        for fs_uuid, count in counts.items()
        if count > 1
    )


def _unreadable(disks: list[Disk]) -> tuple[str, ...]:
    return tuple(f"{disk.path}: {disk.problem}" for disk in disks if disk.problem)


def _left_alone(sets: list[_Set], taken: _Set) -> tuple[str, ...]:
    return tuple(f"Left alone: {one.describe()}." for one in sets if one is not taken)


def _is_missing(member: Member, appliance_id: str) -> str:
    return (
        f"The volume {' and '.join(member.roles)} of appliance {appliance_id} is missing (file system "
        f"{member.fs_uuid}, {member.size_bytes / GIB:.0f} GiB). Attach its disk and start again."
    )


def _which_of(sets: list[_Set]) -> tuple[str, ...]:
    return (
        "More than one set of volumes is attached: "
        + "; ".join(one.describe() for one in sets)
        + f". Detach those that don't belong here and start again. {_how_to_choose()}",
    )


def _how_to_choose() -> str:
    return "Or choose, over SSH: sudo pacs machine choose APPLIANCE-ID, then restart."


def _nothing_to_use(blank: list[Disk], situation: Situation) -> str:
    if blank:
        why = "they are kept (PACS_MACHINE_KEEP_BLANK)" if situation.keeps_blank else "this is no virtual machine"
        return (
            f"There are blank disks, and none is claimed by itself: {why}. Attach the appliance's volumes, or name the "
            "disks, by SSH: `sudo pacs raid create` makes a RAID of them, `sudo pacs machine claim DISK ...` volumes."
        )
    size = situation.minimum_size_bytes / GIB
    return (
        f"There are no volumes and no blank disk of {size:.0f} GiB or more. Attach three disks (state, tier 1, "
        "tier 2; two or one will do) or the disks of an earlier appliance, and start again."
    )
