"""Every importer gets the same machine out of the OVA."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

import pytest

from packer.ova.package import manifest
from tests.ovf import importers
from tests.ovf.importers import RefusedError, Virtual

MIB = 1024 * 1024
Reader = Callable[[Mapping[str, bytes]], Virtual]
READERS: list[Reader] = [
    importers.proxmox,
    importers.virt_v2v,
    importers.virtualbox,
    importers.xen_orchestra,
    importers.vmware,
]


def _name(reader: Reader) -> str:
    return reader.__name__


@pytest.mark.parametrize("reader", READERS, ids=_name)
def test_the_machine(reader: Reader, members: dict[str, bytes]) -> None:
    machine = reader(members)
    assert (machine.name, machine.cpus, machine.memory_mib) == ("pacs-appliance", 2, 4096)
    assert len(machine.nics) == 1
    assert machine.firmware in {"bios", "seabios"}


@pytest.mark.parametrize("reader", READERS, ids=_name)
def test_the_disks_in_their_order(reader: Reader, members: dict[str, bytes]) -> None:
    machine = reader(members)
    assert sorted(machine.disks) == [0, 1, 2, 3]
    names = [re.sub(r"^pacs-appliance-[0-9.]+-", "", machine.disks[address][0]) for address in sorted(machine.disks)]
    assert names == ["system.vmdk", "state.vmdk", "tier1.vmdk", "tier2.vmdk"]


@pytest.mark.parametrize("reader", [importers.proxmox, importers.xen_orchestra, importers.vmware], ids=_name)
def test_the_data_disks_grow_strictly(reader: Reader, members: dict[str, bytes]) -> None:
    """First boot tells them apart by their sizes alone."""
    sizes = [reader(members).disks[address][1] for address in (1, 2, 3)]
    assert sizes == sorted(set(sizes))
    assert all(size >= 64 * MIB for size in sizes)


def test_proxmox_knows_the_system_and_the_card(members: dict[str, bytes]) -> None:
    machine = importers.proxmox(members)
    assert (machine.os_type, machine.nics) == ("l26", ["vmxnet3"])


# What would break which importer: each change must be seen, or the rules above prove nothing.
BREAKAGES: list[tuple[Reader, str, str]] = [
    (importers.proxmox, "ovf:/disk/state", "/disk/state"),
    (importers.proxmox, ' ovf:fileRef="file-tier1"', ""),
    (importers.proxmox, "byte * 2^20", "MegaBytes"),
    (importers.proxmox, "<rasd:AddressOnParent>2<", "<rasd:AddressOnParent>1<"),
    (importers.virt_v2v, ' ovf:fileRef="file-tier1"', ""),
    (importers.virt_v2v, 'vmw:value="bios"', 'vmw:value="uefi"'),
    (
        importers.virtualbox,
        ' ovf:required="false">\n        <rasd:AutomaticAllocation>false',
        ">\n        <rasd:AutomaticAllocation>false",
    ),
    (importers.virtualbox, "<rasd:Parent>4<", "<rasd:Parent>9<"),
    (importers.virtualbox, "vmdk.html#streamOptimized", "vmdk.html#"),
    (importers.virtualbox, "<rasd:AllocationUnits>byte * 2^20", "<rasd:AllocationUnits>KiB"),
    (importers.xen_orchestra, "vssd:VirtualSystemIdentifier", "vssd:VirtualSystemName"),
    (importers.xen_orchestra, ' ovf:fileRef="file-tier1"', ""),
    (importers.vmware, "vmx-13", "virtualbox-2.2"),
    (importers.vmware, "vmdk.html#streamOptimized", "vmdk.html#"),
    (importers.vmware, "<rasd:InstanceID>20<", "<rasd:InstanceID>21<"),
    (importers.vmware, "<rasd:Connection>VM Network", "<rasd:Connection>Other"),
    (importers.vmware, "com.vmware.guestInfo iso", "iso"),
    (importers.vmware, "envelope/1", "envelope/2"),
]


@pytest.mark.parametrize(("reader", "old", "new"), BREAKAGES)
def test_a_broken_descriptor_is_seen(reader: Reader, old: str, new: str, members: dict[str, bytes]) -> None:
    name = next(iter(members))
    text = members[name].decode()
    assert old in text
    broken = {**members, name: text.replace(old, new).encode()}
    # A digest that fits: what is refused must be the descriptor.
    listing = next(other for other in members if other.endswith(".mf"))
    broken[listing] = re.sub(rb"(?m)^SHA256\([^)]*\.ovf\)= .*$", _line(name, broken[name]), members[listing])
    with pytest.raises(RefusedError):
        reader(broken)


def _line(name: str, content: bytes) -> bytes:
    return manifest([(name, hashlib.sha256(content).hexdigest())]).strip().encode()


@pytest.mark.parametrize("change", ["SHA2-256(", "SHA256 (", "SHA1("])
def test_a_manifest_of_another_form_is_seen(change: str, members: dict[str, bytes]) -> None:
    name = next(other for other in members if other.endswith(".mf"))
    broken = {**members, name: members[name].replace(b"SHA256(", change.encode())}
    with pytest.raises(RefusedError):
        importers.vmware(broken)


def test_a_changed_disk_is_seen(members: dict[str, bytes]) -> None:
    name = next(other for other in members if other.endswith("-state.vmdk"))
    with pytest.raises(RefusedError, match="checksum"):
        importers.virt_v2v({**members, name: members[name][:-1] + b"x"})


def test_another_order_is_seen(members: dict[str, bytes]) -> None:
    with pytest.raises(RefusedError, match="first"):
        importers.vmware(dict(reversed(members.items())))
