"""What five importers would make of an OVA: their reading rules, written again from their sources.

Each reader takes the unpacked tar in order and returns the machine that the importer would create, or raises
`RefusedError` with the reason that the importer would give. Read at: pve-storage and qemu-server 2026-08, virt-v2v
71376bd (2026-08), VirtualBox 2024-10, Xen Orchestra 2026-08; VMware's rules come from its error messages.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
VMW = "http://www.vmware.com/schema/ovf"
_NAMESPACES = {"ovf": OVF, "rasd": RASD, "vssd": VSSD, "vmw": VMW}
_STREAM_OPTIMISED = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"

# CIM_ResourceAllocationSettingData.ResourceType
CPU, MEMORY, IDE, SCSI, NIC, CD, DISK = "3", "4", "5", "6", "10", "15", "17"
MIB = 1024 * 1024


class RefusedError(Exception):
    """The importer would stop here."""


@dataclass
class Virtual:
    """The machine that comes out of an import."""

    name: str
    cpus: int
    memory_mib: int
    disks: dict[int, tuple[str, int]] = field(default_factory=dict)  # address → file name, capacity in bytes
    nics: list[str] = field(default_factory=list)
    firmware: str = "bios"
    os_type: str = ""


def _all(root: ET.Element, path: str) -> list[ET.Element]:
    return root.findall(path, _NAMESPACES)


def _text(element: ET.Element, path: str) -> str | None:
    found = element.find(path, _NAMESPACES)
    return found.text if found is not None else None


def _needed(element: ET.Element, path: str, importer: str) -> str:
    text = _text(element, path)
    if not text:
        raise RefusedError(f"{importer}: no {path}")
    return text


def _items(root: ET.Element, kind: str) -> list[ET.Element]:
    items = _all(root, ".//ovf:VirtualHardwareSection/ovf:Item")
    return [item for item in items if _text(item, "rasd:ResourceType") == kind]


def _files(root: ET.Element) -> dict[str, str]:
    return {
        file.attrib[f"{{{OVF}}}id"]: file.attrib[f"{{{OVF}}}href"] for file in _all(root, ".//ovf:References/ovf:File")
    }


def _disks(root: ET.Element) -> dict[str, Mapping[str, str]]:
    return {disk.attrib[f"{{{OVF}}}diskId"]: disk.attrib for disk in _all(root, ".//ovf:DiskSection/ovf:Disk")}


def _units_bytes(units: str | None, importer: str) -> int:
    if units is None:
        return 1
    found = re.fullmatch(r"byte \* (\d+)\^(\d+)", units)
    if not found:
        raise RefusedError(f"{importer}: can't read the unit {units!r}")
    return int(int(found[1]) ** int(found[2]))


def _disk_id(item: ET.Element, importer: str, prefix: str = r"ovf:/disk/") -> str:
    resource = _text(item, "rasd:HostResource") or ""
    found = re.fullmatch(prefix + r"(\S+)", resource)
    if not found:
        raise RefusedError(f"{importer}: skips the disk with HostResource {resource!r}")
    return found[1]


def proxmox(members: Mapping[str, bytes]) -> Virtual:
    """pve-storage PVE/GuestImport/OVF.pm and `qm importovf`: disks are named scsi<AddressOnParent>."""
    root = _descriptor(members)
    cpus = int(_needed(_one(root, CPU, "Proxmox"), "rasd:VirtualQuantity", "Proxmox"))
    memory_mib = int(_needed(_one(root, MEMORY, "Proxmox"), "rasd:VirtualQuantity", "Proxmox"))  # the unit is ignored
    name = _needed(root, ".//ovf:VirtualSystem/ovf:Name", "Proxmox")
    machine = Virtual(re.sub(r"[^a-zA-Z0-9.-]", "", name), cpus, memory_mib)
    files, disks = _files(root), _disks(root)
    controllers = {
        _needed(item, "rasd:InstanceID", "Proxmox"): kind for kind in (IDE, SCSI) for item in _items(root, kind)
    }
    for item in _items(root, DISK):
        disk = disks[_disk_id(item, "Proxmox")]
        if f"{{{OVF}}}fileRef" not in disk:
            raise RefusedError("Proxmox: skips a disk without a file")
        href = files[disk[f"{{{OVF}}}fileRef"]]
        if not re.fullmatch(r"[A-Za-z0-9._-]+", href) or href not in members:
            raise RefusedError(f"Proxmox: can't use the file {href!r}")
        if controllers.get(_needed(item, "rasd:Parent", "Proxmox")) != SCSI:
            raise RefusedError("Proxmox: the disk hangs on no SCSI controller")
        address = int(_needed(item, "rasd:AddressOnParent", "Proxmox"))
        capacity = int(disk[f"{{{OVF}}}capacity"]) * _units_bytes(
            disk.get(f"{{{OVF}}}capacityAllocationUnits"), "Proxmox"
        )
        _put(machine, address, href, capacity, "Proxmox")
    machine.nics = [_proxmox_nic(item) for item in _items(root, NIC)]
    machine.os_type = {"96": "l26"}.get(_one_section(root).attrib[f"{{{OVF}}}id"], "other")
    machine.firmware = {"efi": "ovmf"}.get(_firmware(root) or "", "seabios")
    return machine


def _proxmox_nic(item: ET.Element) -> str:
    model = (_text(item, "rasd:ResourceSubType") or "").lower()
    return model if model in {"e1000", "e1000e", "vmxnet3"} else "e1000"


def virt_v2v(members: Mapping[str, bytes]) -> Virtual:
    """virt-v2v input/OVF.ml, input/OVA.ml: every disk has a file, the manifest's lines match one expression."""
    names = list(members)
    if sum(name.endswith(".ovf") for name in names) != 1 or sum(name.endswith(".mf") for name in names) != 1:
        raise RefusedError("virt-v2v: wants exactly one .ovf and one .mf")
    for line in members[next(name for name in names if name.endswith(".mf"))].decode().splitlines():
        found = re.fullmatch(r"(SHA1|SHA256)\s*\((.*)\)\s*= ([0-9a-fA-F]+)", line)
        if not found:
            raise RefusedError(f"virt-v2v: unable to parse the manifest's line {line!r}")
        if hashlib.new(found[1].lower(), members[found[2]]).hexdigest() != found[3]:
            raise RefusedError(f"virt-v2v: checksum of {found[2]} does not match")
    root = _descriptor(members)
    firmware = _firmware(root) or "bios"
    if firmware not in {"bios", "efi"}:
        raise RefusedError(f"virt-v2v: unknown firmware {firmware!r}")
    machine = Virtual(
        _text(root, ".//ovf:VirtualSystem/ovf:Name") or "default",
        int(_text(_one(root, CPU, "virt-v2v"), "rasd:VirtualQuantity") or 1),
        int(_text(_one(root, MEMORY, "virt-v2v"), "rasd:VirtualQuantity") or 1024),
        firmware=firmware,
    )
    files, disks = _files(root), _disks(root)
    parents = {_needed(item, "rasd:InstanceID", "virt-v2v") for kind in (IDE, SCSI) for item in _items(root, kind)}
    for item in _items(root, DISK):
        if _needed(item, "rasd:Parent", "virt-v2v") not in parents:
            raise RefusedError("virt-v2v: the disk's controller is unknown")
        disk = disks[_disk_id(item, "virt-v2v", prefix=r"(?:ovf:)?/disk/")]
        if f"{{{OVF}}}fileRef" not in disk:
            raise RefusedError("virt-v2v: error parsing disk fileRef")
        address = int(_needed(item, "rasd:AddressOnParent", "virt-v2v"))
        _put(machine, address, files[disk[f"{{{OVF}}}fileRef"]], 0, "virt-v2v")
    machine.nics = [_needed(item, "rasd:ResourceSubType", "virt-v2v") for item in _items(root, NIC)]
    return machine


_VIRTUALBOX_KINDS = {"3", "4", "5", "6", "10", "14", "15", "16", "17", "20", "23", "35"}


def virtualbox(members: Mapping[str, bytes]) -> Virtual:
    """VirtualBox Main/xml/ovfreader.cpp and ApplianceImplImport.cpp: required items of unknown kind stop it."""
    root = _descriptor(members)
    memory_bytes = cpus = 0
    controllers: dict[str, str] = {}
    for item in _all(root, ".//ovf:VirtualHardwareSection/ovf:Item"):
        kind = _needed(item, "rasd:ResourceType", "VirtualBox")
        if kind not in _VIRTUALBOX_KINDS and item.get(f"{{{OVF}}}required", "true") != "false":
            raise RefusedError(f"VirtualBox: unknown resource type {kind}")
        if kind == CPU:
            cpus = int(_needed(item, "rasd:VirtualQuantity", "VirtualBox"))
        elif kind == MEMORY:
            unit = _needed(item, "rasd:AllocationUnits", "VirtualBox")
            factors = {
                "MegaBytes": MIB,
                "MB": MIB,
                "byte * 2^20": MIB,
                "GigaBytes": 2**30,
                "GB": 2**30,
                "byte * 2^30": 2**30,
            }
            if unit not in factors:
                raise RefusedError(f"VirtualBox: invalid allocation unit {unit!r}")
            memory_bytes = int(_needed(item, "rasd:VirtualQuantity", "VirtualBox")) * factors[unit]
        elif kind in (IDE, SCSI):
            controllers[_needed(item, "rasd:InstanceID", "VirtualBox")] = kind
    if list(controllers.values()).count(SCSI) > 1:
        raise RefusedError("VirtualBox: more than one SCSI controller")
    machine = Virtual(_one_system(root).attrib[f"{{{OVF}}}id"], cpus, memory_bytes // MIB)
    files, disks = _files(root), _disks(root)
    for kind in (DISK, CD):
        for item in _items(root, kind):
            parent = _needed(item, "rasd:Parent", "VirtualBox")
            if parent not in controllers:
                raise RefusedError(f"VirtualBox: item {_text(item, 'rasd:InstanceID')} has the unknown parent {parent}")
            if kind == DISK:
                disk = disks[_disk_id(item, "VirtualBox", prefix=r"(?:ovf:)?/?/?/disk/")]
                if disk[f"{{{OVF}}}format"] != _STREAM_OPTIMISED:
                    raise RefusedError(f"VirtualBox: unknown format {disk[f'{{{OVF}}}format']}")
                # Without a file its size would be `capacity`, whatever the unit: a disk of nothing.
                address = int(_needed(item, "rasd:AddressOnParent", "VirtualBox"))
                capacity = MIB * int(disk[f"{{{OVF}}}capacity"])
                _put(machine, address, files[disk[f"{{{OVF}}}fileRef"]], capacity, "VirtualBox")
    machine.nics = [_text(item, "rasd:ResourceSubType") or "" for item in _items(root, NIC)]
    return machine


def xen_orchestra(members: Mapping[str, bytes]) -> Virtual:
    """xen-orchestra packages/xo-vmdk-to-vhd/src/ova-read.js: the firmware is not read, BIOS boots."""
    root = _descriptor(members)
    name = _needed(root, ".//vssd:VirtualSystemIdentifier", "Xen Orchestra")
    unit = _needed(_one(root, MEMORY, "Xen Orchestra"), "rasd:AllocationUnits", "Xen Orchestra")
    memory = int(_needed(_one(root, MEMORY, "Xen Orchestra"), "rasd:VirtualQuantity", "Xen Orchestra"))
    cpus = int(_needed(_one(root, CPU, "Xen Orchestra"), "rasd:VirtualQuantity", "Xen Orchestra"))
    machine = Virtual(name, cpus, memory * _units_bytes(unit, "Xen Orchestra") // MIB)
    files, disks = _files(root), _disks(root)
    for item in _items(root, DISK):
        disk = disks[_disk_id(item, "Xen Orchestra", prefix=r"(?:ovf:)?/disk/")]
        if f"{{{OVF}}}fileRef" not in disk:
            raise RefusedError("Xen Orchestra: a disk without a file has no path")
        disk_unit = disk.get(f"{{{OVF}}}capacityAllocationUnits")
        capacity = int(disk[f"{{{OVF}}}capacity"]) * _units_bytes(disk_unit, "Xen Orchestra")
        address = int(_needed(item, "rasd:AddressOnParent", "Xen Orchestra"))
        _put(machine, address, files[disk[f"{{{OVF}}}fileRef"]], capacity, "Xen Orchestra")
    machine.nics = [
        _text(item, "rasd:Connection") or ""
        for item in _items(root, NIC)
        if _text(item, "rasd:AutomaticAllocation") == "true"
    ]
    return machine


def vmware(members: Mapping[str, bytes]) -> Virtual:
    """ovftool, Workstation and vSphere as far as their refusals tell."""
    names = list(members)
    if not names[0].endswith(".ovf") or names[1] != names[0].removesuffix(".ovf") + ".mf":
        raise RefusedError("VMware: the .ovf must be the first member, its .mf next")
    if any(name.endswith(".cert") for name in names) and names[2] != names[0].removesuffix(".ovf") + ".cert":
        raise RefusedError("VMware: the .cert must follow the manifest")
    wanted = {name for name in names if not name.endswith((".mf", ".cert"))}
    listed = re.findall(r"^SHA256\(([A-Za-z0-9._-]+)\)= ([0-9a-f]{64})$", members[names[1]].decode(), re.MULTILINE)
    if {name for name, _ in listed} != wanted or len(listed) != members[names[1]].count(b"\n"):
        raise RefusedError("VMware: the manifest does not name every file, each in its own form of line")
    root = _descriptor(members)
    family = _needed(root, ".//vssd:VirtualSystemType", "VMware")
    if not re.fullmatch(r"vmx-(0[7-9]|1[0-9]|2[0-2])", family):
        raise RefusedError(f"VMware: unsupported hardware family {family}")
    for file in _all(root, ".//ovf:References/ovf:File"):
        if int(file.attrib[f"{{{OVF}}}size"]) != len(members[file.attrib[f"{{{OVF}}}href"]]):
            raise RefusedError("VMware: a file's size is not what the descriptor says")
        if f"{{{OVF}}}compression" in file.attrib:
            raise RefusedError("VMware: OVF package with compressed disks is not supported")
    if _all(root, ".//vmw:ExtraConfig") or any(name.endswith(".nvram") for name in names):
        raise RefusedError("VMware: what only an export has")
    section = root.find(".//ovf:VirtualHardwareSection", _NAMESPACES)
    if section is None or section.get(f"{{{OVF}}}transport") != "com.vmware.guestInfo iso":
        raise RefusedError("VMware: no way to hand properties over")
    networks = {network.attrib[f"{{{OVF}}}name"] for network in _all(root, ".//ovf:NetworkSection/ovf:Network")}
    machine = Virtual(
        _needed(root, ".//ovf:VirtualSystem/ovf:Name", "VMware"),
        int(_needed(_one(root, CPU, "VMware"), "rasd:VirtualQuantity", "VMware")),
        int(_needed(_one(root, MEMORY, "VMware"), "rasd:VirtualQuantity", "VMware")),
    )
    instances = [_text(item, "rasd:InstanceID") for item in _all(root, ".//ovf:Item")]
    if len(instances) != len(set(instances)):
        raise RefusedError("VMware: an InstanceID stands twice")
    files, disks = _files(root), _disks(root)
    for item in _items(root, DISK):
        disk = disks[_disk_id(item, "VMware")]
        if disk[f"{{{OVF}}}format"] != _STREAM_OPTIMISED:
            raise RefusedError("VMware: unsupported disk format")
        unit = disk.get(f"{{{OVF}}}capacityAllocationUnits")
        address = int(_needed(item, "rasd:AddressOnParent", "VMware"))
        capacity = int(disk[f"{{{OVF}}}capacity"]) * _units_bytes(unit, "VMware")
        _put(machine, address, files[disk[f"{{{OVF}}}fileRef"]], capacity, "VMware")
    for item in _items(root, NIC):
        if _text(item, "rasd:Connection") not in networks:
            raise RefusedError("VMware: the card is on no known network")
        machine.nics.append(_needed(item, "rasd:ResourceSubType", "VMware"))
    return machine


def _put(machine: Virtual, address: int, file_name: str, capacity_bytes: int, importer: str) -> None:
    if address in machine.disks or address == 7:
        raise RefusedError(f"{importer}: two disks, or the controller itself, at address {address}")
    machine.disks[address] = (file_name, capacity_bytes)


def _descriptor(members: Mapping[str, bytes]) -> ET.Element:
    name = next((name for name in members if name.endswith(".ovf")), None)
    if name is None:
        raise RefusedError("no .ovf in the OVA")
    root = ET.fromstring(members[name])
    if root.tag != f"{{{OVF}}}Envelope":
        raise RefusedError(f"the root element is {root.tag}: OVF 2 or none at all")
    return root


def _one(root: ET.Element, kind: str, importer: str) -> ET.Element:
    items = _items(root, kind)
    if len(items) != 1:
        raise RefusedError(f"{importer}: {len(items)} items of type {kind}")
    return items[0]


def _one_system(root: ET.Element) -> ET.Element:
    (system,) = _all(root, "ovf:VirtualSystem")
    return system


def _one_section(root: ET.Element) -> ET.Element:
    (section,) = _all(root, ".//ovf:OperatingSystemSection")
    return section


def _firmware(root: ET.Element) -> str | None:
    for config in _all(root, ".//vmw:Config"):
        if config.get(f"{{{VMW}}}key") == "firmware":
            return config.get(f"{{{VMW}}}value")
    return None
