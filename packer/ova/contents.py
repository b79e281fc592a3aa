"""What a descriptor says is in its OVA, read without belief: files, disks, hardware."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from packer.errors import BuildError

_OVF = "http://schemas.dmtf.org/ovf/envelope/1"
_NAMESPACES = {
    "ovf": _OVF,
    "rasd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData",
    "vssd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData",
}
_FORMAT = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_DISK = "17"  # CIM_ResourceAllocationSettingData.ResourceType
_AGAIN = "Fetch the OVA again; don't import it."


@dataclass(frozen=True)
class ContentsDisk:
    """A disk that the machine gets."""

    file_name: str
    capacity_bytes: int


@dataclass(frozen=True)
class Contents:
    """The descriptor's own account: `files` are sizes in bytes by name, in their order."""

    name: str
    hardware: str
    files: dict[str, int]
    disks: tuple[ContentsDisk, ...]


def read_contents(xml: bytes) -> Contents:
    """The account of a descriptor. Raise BuildError if it is none, or none that importers take."""
    if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        raise BuildError("The descriptor defines entities of its own.", _AGAIN)
    try:
        root = ET.fromstring(xml)  # noqa: S314 # without a DTD there is nothing to expand
    except ET.ParseError as error:
        raise BuildError(f"The descriptor is no XML ({error}).", _AGAIN) from error
    if root.tag != f"{{{_OVF}}}Envelope":
        raise BuildError(f"The descriptor is no OVF 1 ({root.tag}).", "VMware takes no OVF 2: fetch the original.")
    try:
        return _contents(root)
    except (KeyError, ValueError) as error:
        raise BuildError(f"The descriptor lacks what importers need ({error}).", _AGAIN) from error


def _contents(root: ET.Element) -> Contents:
    files = {_attribute(file, "id"): file for file in root.findall("ovf:References/ovf:File", _NAMESPACES)}
    sizes = {_attribute(file, "href"): int(_attribute(file, "size")) for file in files.values()}
    known = {_attribute(disk, "diskId"): disk for disk in root.findall("ovf:DiskSection/ovf:Disk", _NAMESPACES)}
    system = root.findall("ovf:VirtualSystem", _NAMESPACES)
    if len(system) != 1:
        raise ValueError(f"{len(system)} machines")
    disks = []
    for item in system[0].findall("ovf:VirtualHardwareSection/ovf:Item", _NAMESPACES):
        if item.findtext("rasd:ResourceType", "", _NAMESPACES) == _DISK:
            resource = item.findtext("rasd:HostResource", "", _NAMESPACES)
            disk = known.pop(resource.removeprefix("ovf:/disk/"))
            if _attribute(disk, "format") != _FORMAT:
                raise ValueError(f"format {_attribute(disk, 'format')}")
            file = files[_attribute(disk, "fileRef")]
            disks.append(ContentsDisk(_attribute(file, "href"), _capacity_bytes(disk)))
    if known:
        raise ValueError(f"disks that no controller has: {', '.join(known)}")
    hardware = system[0].findtext("ovf:VirtualHardwareSection/ovf:System/vssd:VirtualSystemType", "", _NAMESPACES)
    if not re.fullmatch(r"vmx-\d+", hardware):
        raise ValueError(f"hardware {hardware!r}")
    return Contents(system[0].findtext("ovf:Name", "", _NAMESPACES), hardware, sizes, tuple(disks))


def _capacity_bytes(disk: ET.Element) -> int:
    unit = re.fullmatch(r"byte(?: \* 2\^(\d+))?", disk.get(f"{{{_OVF}}}capacityAllocationUnits", "byte"))
    if not unit:
        raise ValueError("the unit of a disk's capacity")
    return int(_attribute(disk, "capacity")) << int(unit[1] or 0)


def _attribute(element: ET.Element, name: str) -> str:
    return element.attrib[f"{{{_OVF}}}{name}"]
