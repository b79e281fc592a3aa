"""Which disks are claimed and which volumes are taken, in every situation that we could think of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pacs.machine.policy import (
    GIB,
    Adopt,
    Claim,
    Disk,
    Refuse,
    Situation,
    UseFolders,
    Volume,
    plan,
)
from pacs.machine.records import Member, SetRecord, SystemRecord
from pacs.storage.volume import VolumeIdentity

VM = Situation(virtual_machine=True)
METAL = Situation(virtual_machine=False)
WITHOUT = Situation(virtual_machine=True, without_volumes=True)
ROLES = ("state", "tier1", "tier2")


def blank(letter: str, size_gib: float = 10) -> Disk:
    path = f"/dev/sd{letter}"
    return Disk(path, int(size_gib * GIB), hardware=f"slot {letter}", blank=True, unsigned=True)


def members(appliance: str) -> tuple[Member, ...]:
    return tuple(Member(f"{appliance}-{role}", (role,), f"uuid-{appliance}-{role}", 10 * GIB) for role in ROLES)


def a_set(appliance: str, letters: str = "bcd", data: bool = True) -> list[Disk]:
    """The disks of a whole set of three volumes; data lies on tier 2 if anywhere."""
    record = SetRecord(appliance, members(appliance))
    return [
        Disk(
            f"/dev/sd{letter}",
            10 * GIB,
            f"slot {letter}",
            fs_uuid=member.fs_uuid,
            volume=Volume(
                VolumeIdentity(1, appliance, member.volume_id, member.roles, "2026-11-22T00:00:00+00:00"),
                has_data=data and member.roles == ("tier2",),
                record=record if member.roles == ("state",) else None,
            ),
        )
        for letter, member in zip(letters, record.members, strict=True)
    ]


def remembers(appliance: str) -> SystemRecord:
    return SystemRecord(appliance, members(appliance))


def claims(
    disks: list[Disk], situation: Situation = VM, known: SystemRecord | None = None
) -> dict[str, tuple[str, ...]]:
    made = plan(disks, known, situation)
    assert isinstance(made, Claim), made
    return {disk.path: roles for disk, roles in made.disks}


def refusal(disks: list[Disk], known: SystemRecord | None = None, situation: Situation = VM) -> str:
    made = plan(disks, known, situation)
    assert isinstance(made, Refuse), made
    assert made.problems
    return "\n".join(made.problems)


def adopted(disks: list[Disk], known: SystemRecord | None = None, situation: Situation = VM) -> Adopt:
    made = plan(disks, known, situation)
    assert isinstance(made, Adopt), made
    return made


# First boot, blank disks


def test_three_blank_disks_by_size() -> None:
    disks = [blank("b", 500), blank("c", 20), blank("d", 100)]
    assert claims(disks) == {"/dev/sdc": ("state",), "/dev/sdd": ("tier1",), "/dev/sdb": ("tier2",)}


def test_disks_of_one_size_in_the_order_of_their_names() -> None:
    assert claims([blank("d"), blank("b"), blank("c")]) == {
        "/dev/sdb": ("state",),
        "/dev/sdc": ("tier1",),
        "/dev/sdd": ("tier2",),
    }


def test_of_two_the_smaller_is_state_and_tier1() -> None:
    assert claims([blank("b", 100), blank("c", 20)]) == {"/dev/sdc": ("state", "tier1"), "/dev/sdb": ("tier2",)}


def test_one_has_no_tier2() -> None:
    assert claims([blank("b")]) == {"/dev/sdb": ("state", "tier1")}


def test_a_fourth_is_only_offered() -> None:
    made = plan([blank("b", 1), blank("c", 2), blank("d", 3), blank("e", 4)], None, VM)
    assert isinstance(made, Claim)
    assert [disk.path for disk in made.offered] == ["/dev/sde"]


def test_small_disks_are_not_claimed() -> None:
    assert "no blank disk" in refusal([blank("b", 0.99)])


def test_not_on_a_physical_machine() -> None:
    assert "virtual machine" in refusal([blank("b"), blank("c")], situation=METAL)


@pytest.mark.parametrize(
    "disk",
    [
        Disk("/dev/sdb", 10 * GIB, unsigned=True),
        Disk("/dev/sdb", 10 * GIB),
        Disk("/dev/sdb", 10 * GIB, fs_uuid="somebody's"),
    ],
    ids=["bytes without a signature", "another's file system", "another's ext4"],
)
def test_only_blank_disks(disk: Disk) -> None:
    assert "no blank disk" in refusal([disk])


def test_nothing_at_all() -> None:
    assert "three disks" in refusal([])


# Volumes found


def test_a_whole_set_is_taken_by_a_new_system_disk() -> None:
    made = adopted(a_set("A"))
    assert made.appliance_id == "A"
    assert {member.roles[0]: made.disks[member.fs_uuid].path for member in made.members} == {
        "state": "/dev/sdb",
        "tier1": "/dev/sdc",
        "tier2": "/dev/sdd",
    }


def test_also_on_a_physical_machine() -> None:
    assert adopted(a_set("A"), situation=METAL).appliance_id == "A"


def test_beside_a_set_blank_disks_are_only_offered() -> None:
    made = adopted([*a_set("A"), blank("e")])
    assert [disk.path for disk in made.offered] == ["/dev/sde"]


@pytest.mark.parametrize("lost", range(3), ids=ROLES)
@pytest.mark.parametrize("known", [None, remembers("A")], ids=["new system disk", "own system disk"])
def test_an_incomplete_set_is_not(lost: int, known: SystemRecord | None) -> None:
    disks = a_set("A")
    del disks[lost]
    said = refusal([*disks, blank("e"), blank("f")], known)
    assert ROLES[lost] in said
    assert "missing" in said


def test_a_system_disk_that_had_volumes_never_starts_without() -> None:
    said = refusal([blank("b"), blank("c"), blank("d")], remembers("A"))
    assert said.count("missing") == 3


def test_not_even_with_the_setting() -> None:
    assert "missing" in refusal([], remembers("A"), WITHOUT)


def test_two_sets_with_data_ask() -> None:
    said = refusal(a_set("A") + a_set("B", "efg"))
    assert "appliance A" in said
    assert "appliance B" in said
    assert "pacs machine choose" in said


def test_two_sets_with_data_ask_even_if_one_is_known() -> None:
    assert "More than one" in refusal(a_set("A") + a_set("B", "efg"), remembers("A"))


def test_what_was_chosen_is_taken() -> None:
    known = SystemRecord("B", chosen=True)
    assert adopted(a_set("A") + a_set("B", "efg"), known).appliance_id == "B"


def test_an_empty_set_gives_way() -> None:
    disks = a_set("A", data=False) + a_set("B", "efg")
    assert adopted(disks).appliance_id == "B"
    made = adopted(disks, remembers("A"))
    assert made.appliance_id == "B"
    assert "appliance A" in made.notes[0]


def test_the_set_with_data_does_not_give_way_to_an_empty_one() -> None:
    assert adopted(a_set("A") + a_set("B", "efg", data=False), remembers("A")).appliance_id == "A"


def test_of_two_empty_sets_the_known_one() -> None:
    disks = a_set("A", data=False) + a_set("B", "efg", data=False)
    assert adopted(disks, remembers("B")).appliance_id == "B"
    assert "More than one" in refusal(disks)


def test_an_empty_set_does_not_give_way_to_half_a_set() -> None:
    assert "missing" in refusal(a_set("A", data=False) + a_set("B", "efg")[1:], remembers("A"))


def test_another_set_in_the_place_of_the_known_one_is_named() -> None:
    said = refusal(a_set("B", "efg"), remembers("A"))
    assert "missing" in said
    assert "appliance B on /dev/sde" in said


def test_a_copy_of_a_volume_stops_the_start() -> None:
    disks = a_set("A")
    assert "more than once" in refusal([*disks, replace(disks[2], path="/dev/sdx")], remembers("A"))


@pytest.mark.parametrize("known", [None, remembers("A")])
@pytest.mark.parametrize("role", range(3))
def test_a_volume_that_is_attached_and_too_new_is_not_called_missing(role: int, known: SystemRecord | None) -> None:
    disks = a_set("A")
    disks[role] = replace(disks[role], volume=None, problem="use the image of version 99.0.0")
    said = refusal(disks, known)
    assert f"{disks[role].path}: use the image of version 99.0.0" in said
    assert "is missing" not in said


def test_a_volume_that_cannot_be_read_stops_a_claim() -> None:
    broken = Disk("/dev/sdb", 10 * GIB, fs_uuid="u", problem="damaged")
    assert "/dev/sdb: damaged" in refusal([broken, blank("c"), blank("d")])


# A claim cut short


def cut_short(done: int, torn: bool = False) -> tuple[list[Disk], SystemRecord]:
    """Three disks of which `done` have their identity (tiers first, the state last), the next perhaps half a mkfs."""
    whole = a_set("A", data=False)
    disks = [blank(letter) for letter in "bcd"]
    for index in (1, 2, 0)[:done]:
        disks[index] = whole[index]
    if torn:
        index = (1, 2, 0)[done]
        disks[index] = replace(disks[index], blank=False)  # superblock not there yet, but other blocks are
    hardware = {disk.fs_uuid: disk.hardware for disk in whole}
    return disks, replace(remembers("A"), claiming=True, hardware=hardware)


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_claim_cut_short_is_done_again(done: int, torn: bool) -> None:
    disks, known = cut_short(done, torn)
    assert claims(disks, known=known) == {"/dev/sdb": ("state",), "/dev/sdc": ("tier1",), "/dev/sdd": ("tier2",)}


def test_a_claim_cut_short_after_mkfs() -> None:
    disks, known = cut_short(1)
    disks[2] = Disk("/dev/sdd", 10 * GIB, "slot d", fs_uuid="uuid-A-tier2", problem="no identity")
    assert len(claims(disks, known=known)) == 3


def test_a_claim_cut_short_twice() -> None:
    """The second began anew, with another id, and has not come to what the first had finished."""
    disks, first = cut_short(2)
    second = SystemRecord("B", members("B"), claiming=True, hardware={**first.hardware, "uuid-B-tier1": "slot c"})
    assert len(claims(disks, known=second)) == 3


def test_a_claim_that_only_its_note_is_missing_of_counts() -> None:
    disks, known = cut_short(3)
    assert adopted(disks, known).appliance_id == "A"


def test_doing_it_again_spares_what_is_not_its_own() -> None:
    disks, known = cut_short(1)
    stranger = Disk("/dev/sdx", 10 * GIB, "slot x", unsigned=True)
    assert "/dev/sdx" not in claims([*disks, stranger], known=known)


def test_doing_it_again_spares_data() -> None:
    """It cannot be, and yet: whatever holds a stored file is no half-made volume."""
    disks, known = cut_short(2)
    assert disks[1].volume
    disks[1] = replace(disks[1], volume=replace(disks[1].volume, has_data=True))
    assert "state volume of appliance A is missing" in refusal(disks, known)


def test_half_a_claim_on_a_new_system_disk_asks() -> None:
    disks, _ = cut_short(2)
    assert "missing" in refusal(disks)


# Without volumes


def test_without_volumes_needs_the_setting() -> None:
    assert isinstance(plan([], None, WITHOUT), UseFolders)
    assert isinstance(plan([], None, replace(WITHOUT, virtual_machine=False)), UseFolders)


def test_with_the_setting_blank_disks_are_claimed_all_the_same() -> None:
    assert len(claims([blank("b"), blank("c"), blank("d")], WITHOUT)) == 3


def test_folders_stay_folders() -> None:
    known = SystemRecord("F", folders=True)
    made = plan([blank("b")], known, WITHOUT)
    assert isinstance(made, UseFolders)
    assert [disk.path for disk in made.offered] == ["/dev/sdb"]
    assert "PACS_MACHINE_WITHOUT_VOLUMES" in refusal([], known)


def test_empty_folders_give_way() -> None:
    known = SystemRecord("F", folders=True)
    assert adopted(a_set("A"), known, WITHOUT).appliance_id == "A"
    assert "system disk" in refusal(a_set("A"), known, replace(WITHOUT, folders_have_data=True))


def test_blank_disks_that_are_kept_are_claimed_only_by_name() -> None:
    disks = [Disk(f"/dev/sd{name}", size * GIB, blank=True) for name, size in (("b", 8), ("c", 9), ("d", 10))]
    array = Disk("/dev/md127", 20 * GIB, blank=True)
    kept = plan([*disks, array], None, Situation(virtual_machine=True, keeps_blank=True))
    assert isinstance(kept, Refuse) and "pacs machine claim" in kept.problems[0]
    bare = Situation(virtual_machine=False, named=frozenset({"/dev/md127", "/dev/sdc"}))
    made = plan([*disks, array], None, bare)
    assert isinstance(made, Claim)
    assert [(disk.path, roles) for disk, roles in made.disks] == [
        ("/dev/sdc", ("state", "tier1")),
        ("/dev/md127", ("tier2",)),
    ]
    assert [disk.path for disk in made.offered] == ["/dev/sdb", "/dev/sdd"]


def test_nothing_is_claimed_beside_a_raid_that_does_not_run() -> None:
    part = Disk("/dev/sdc", 8 * GIB, problem="it is a disk of a software RAID that does not run.", of_stopped_raid=True)
    made = plan([Disk("/dev/sdb", 8 * GIB, blank=True), part], None, Situation(virtual_machine=True))
    assert isinstance(made, Refuse) and "/dev/sdc: it is a disk of a software RAID" in made.problems[0]
