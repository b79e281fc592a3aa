"""What pacs-storage.service does: plan, claim, adopt, mount; and says how it went.

The answer is in /run/pacs-machine/storage.json, for the screen and for the units after it; beside it, volumes.env
overrides the service's settings where there is only one tier.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pacs import clock
from pacs.errors import ForeignVolume, PacsError, UsageError, VolumeError
from pacs.machine import claim, filesystem, raid, shares, survey
from pacs.machine.commands import MachineError, run
from pacs.machine.disk import chosen, mount_added, require_blank
from pacs.machine.policy import Adopt, Claim, Plan, Refuse, Situation, UseFolders, plan
from pacs.machine.records import Member, SetRecord, SystemRecord, read_system, write_system
from pacs.storage import durable
from pacs.storage.mounts import mounts
from pacs.storage.volume import read_identity

log = logging.getLogger(__name__)

WAIT_FOR_DISKS_S = 30.0
WAIT_FOR_RAID_S = 20.0


@dataclass(frozen=True)
class Places:
    """Where things are on this machine; tests have their own.

    disk_types and disks, if given, are the only ones that are looked at: tests use loop devices.
    """

    volumes: Path = Path("/srv/pacs")
    memory: Path = Path("/var/lib/pacs/volumes.json")
    answer: Path = Path("/run/pacs-machine/storage.json")
    disk_types: tuple[str, ...] = ("disk",)
    disks: frozenset[str] = frozenset()
    units: Path = Path("/run/systemd/system")

    @property
    def state(self) -> Path:
        return self.volumes / "state"


@dataclass(frozen=True)
class Answer:
    """How the storage is. Disks are (path, size in bytes)."""

    ready: bool
    problems: tuple[str, ...] = ()
    offered: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    appliance_id: str = ""
    roles: tuple[str, ...] = ()


def start(places: Places, named: frozenset[str] = frozenset()) -> Answer:
    """Bring up the storage as far as it may be. The answer says whether it is ready; it is also written down.

    named: disks that a person has named for claiming; see `claim_named`.
    """
    try:
        answer = _start(places, named)
    except PacsError as error:
        answer = Answer(ready=False, problems=(str(error),))
    places.answer.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    one_tier = answer.ready and "tier2" not in answer.roles
    setting = f"PACS_TIER2={places.volumes / 'tier1'}\n" if one_tier else ""
    durable.replace_file(places.answer.with_name("volumes.env"), setting.encode(), 0o644)
    durable.replace_file(places.answer, (json.dumps(asdict(answer), indent=1) + "\n").encode(), 0o644)
    return answer


def read_answer(places: Places) -> Answer | None:
    """The answer of the last start, or None if there was none since the machine was switched on."""
    try:
        found = json.loads(places.answer.read_text("utf-8"))
    except FileNotFoundError:
        return None
    offered = tuple((str(path), int(size_bytes)) for path, size_bytes in found["offered"])
    return Answer(**{**found, "offered": offered})


def claim_named(places: Places, devices: Sequence[str]) -> Answer:
    """Make volumes of these blank disks or RAIDs: on bare metal, where none is claimed by itself. Raise UsageError."""
    known = read_system(places.memory)
    if known is not None and not known.claiming:
        raise UsageError("This machine has its volumes already. A disk more: `pacs machine add-disk DISK NAME`.")
    named = frozenset(str(Path(each).resolve()) for each in devices)
    if not 1 <= len(named) <= 3:
        raise UsageError("Name one to three disks: the smallest is the state's, the next tier 1, the largest tier 2.")
    found = survey.disks((), places.disk_types, places.disks)
    if known is None:
        for path in sorted(named):
            require_blank(chosen(found, path), found)
    return start(places, named)


def choose(places: Places, appliance_id: str) -> None:
    """Say which set of volumes this system disk takes at its next start."""
    known = read_system(places.memory)
    own = known.members if known and known.appliance_id == appliance_id else ()
    write_system(places.memory, SystemRecord(appliance_id, own, chosen=True))


def _start(places: Places, named: frozenset[str]) -> Answer:
    known = read_system(places.memory)
    made = _plan(places, known, named)
    if isinstance(made, Claim):
        known = claim.claim(made.disks, known, places.memory)
        offered = made.offered
        made = _plan(places, known)
        if not isinstance(made, Adopt):
            raise VolumeError(f"The disks claimed just now cannot be taken: {made}. Look at the kernel's log.")
        made = replace(made, offered=offered)
    offered_disks = tuple((disk.path, disk.size_bytes) for disk in made.offered)
    if isinstance(made, Refuse):
        return Answer(False, made.problems, offered_disks)
    if isinstance(made, UseFolders):
        appliance_id = _use_folders(places, known)
        return Answer(
            True,
            (),
            offered_disks,
            ("Runs without volumes, on its system disk.",),
            appliance_id,
            ("state", "tier1", "tier2"),
        )
    assert isinstance(made, Adopt)
    notes = (*made.notes, *_adopt(made, places, known), *shares.mount_known(places))
    roles = tuple(sorted({role for member in made.members for role in member.roles}))
    return Answer(True, (), offered_disks, notes, made.appliance_id, roles)


def _plan(places: Places, known: SystemRecord | None, named: frozenset[str] = frozenset()) -> Plan:
    """The plan for what is plugged in. Disks of a known set may take a moment to appear, as those of a RAID may.

    A RAID that lacks disks is started without them when they have not come for a while, if it can do without.
    """
    filesystem.stop_looking()
    filesystem.settle()
    virtual = run("systemd-detect-virt", "--vm", "--quiet", accept=(0, 1)).returncode == 0
    folders_have_data = bool(known and known.folders) and any(
        survey.has_data(places.volumes / role, role == "state") for role in ("state", "tier1", "tier2")
    )
    situation = Situation(
        virtual,
        os.environ.get("PACS_MACHINE_WITHOUT_VOLUMES") == "1",
        folders_have_data,
        named=named,
        keeps_blank=os.environ.get("PACS_MACHINE_KEEP_BLANK") == "1",
    )
    raid_deadline_s: float | None = clock.monotonic_s() + WAIT_FOR_RAID_S
    deadline_s = clock.monotonic_s() + (WAIT_FOR_DISKS_S if known and not known.folders else 0)
    while True:
        mount_points = [path for path in places.volumes.iterdir() if filesystem.is_mounted(path)]
        found = survey.disks(mount_points, places.disk_types, places.disks)
        if raid_deadline_s is not None and any(disk.of_stopped_raid for disk in found):
            if clock.monotonic_s() > raid_deadline_s:
                raid.start_incomplete()
                raid_deadline_s = None
        else:
            made = plan(found, known, situation)
            if not isinstance(made, Refuse) or clock.monotonic_s() > deadline_s:
                return made
        time.sleep(2)


def _adopt(made: Adopt, places: Places, known: SystemRecord | None) -> list[str]:
    """Remember the set, then mount it. What is mounted already, from an earlier start, stays. Return notes."""
    record = SystemRecord(made.appliance_id, made.members, chosen=bool(known and known.chosen))
    if known != record:
        write_system(places.memory, record)
    on_state = {member.fs_uuid for member in made.members if "state" in member.roles}
    for member in sorted(made.members, key=lambda member: "state" not in member.roles):
        for role in member.roles:
            _mount(member, role, made, places, member.fs_uuid in on_state)
    added = [disk for fs_uuid, disk in made.disks.items() if fs_uuid not in {each.fs_uuid for each in made.members}]
    notes = mount_added(places, added)
    return [*notes, *(note for disk in made.disks.values() if (note := _grow(disk.path)))]


def _mount(member: Member, role: str, made: Adopt, places: Places, on_state: bool) -> None:
    mount_point = places.volumes / role
    if not filesystem.is_mounted(mount_point):
        if on_state and role != "state":
            filesystem.mount_folder(places.state / role, mount_point)
        else:
            filesystem.mount(made.disks[member.fs_uuid].path, mount_point)
    found = read_identity(mount_point)
    if (found.appliance_id, found.volume_id) != (made.appliance_id, member.volume_id):
        filesystem.unmount(mount_point)
        raise ForeignVolume(
            f"{mount_point} is volume {found.volume_id} of appliance {found.appliance_id}, not ours. "
            "Detach disks that are copies of others and start again."
        )
    (claim.give_state if role == "state" else claim.give_tier)(mount_point)


def _grow(device: str) -> str:
    """Let a volume fill a disk that has grown. That it cannot is no reason not to start: return a note."""
    try:
        if filesystem.grow(device):
            log.info("%s: the disk has grown, and its volume with it", device)
    except MachineError as error:
        return f"{device} could not be grown to its disk's size: {error}"
    return ""


def grow(places: Places) -> tuple[list[str], list[str]]:
    """Let every mounted volume fill its disk, while it is in use. Return what grew, and what could not and why."""
    devices = dict.fromkeys(
        mount.source
        for mount in mounts()
        if Path(mount.mount_point).is_relative_to(places.volumes) and mount.file_system == "ext4"
    )
    grown, problems = [], []
    for device in devices:
        try:
            filesystem.rescan(device)
            if filesystem.grow(device):
                grown.append(device)
        except (MachineError, OSError) as error:
            problems.append(f"{device} could not be grown to its disk's size: {error}")
    return grown, problems


def _use_folders(places: Places, known: SystemRecord | None) -> str:
    """Run without volumes: the same folders with the same identity files, on the system disk."""
    if known is None:
        members = tuple(Member(claim.new_id(), (role,), "", 0) for role in ("state", "tier1", "tier2"))
        known = SystemRecord(claim.new_id(), members, folders=True)
        write_system(places.memory, known)
    for member in reversed(known.members):  # the state last, as in a claim
        root = places.volumes / member.roles[0]
        if not (root / "volume.json").exists():
            if "state" in member.roles:
                claim.make_state(root, (member,), SetRecord(known.appliance_id, known.members))
            else:
                claim.make_tier(root, member, known.appliance_id)
    return known.appliance_id
