"""What no importer's rules of importers.py cover, and some version of one has once stumbled over.

Each test is a rule, with the trouble that it keeps away.
"""

from __future__ import annotations

import re
import struct
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
from lxml import etree

_OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
_RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
_VMW = "{http://www.vmware.com/schema/ovf}"
_SECTIONS = [
    "Info", "Name", "OperatingSystemSection", "VirtualHardwareSection", "ProductSection", "AnnotationSection",
]  # fmt: skip
# Processors, memory, SCSI controller, network card, disk: without any of these the machine is not the one meant.
_REQUIRED = {"3", "4", "6", "10", "17"}


@pytest.fixture
def root(members: dict[str, bytes]) -> etree._Element:
    return etree.fromstring(next(iter(members.values())))


@pytest.fixture
def disks(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in members.items() if name.endswith(".vmdk")}


def test_the_namespaces_are_bound_as_readers_by_prefix_expect(root: etree._Element) -> None:
    """Some importers look for `ovf:`, `rasd:`, `vssd:` and `vmw:` as words."""
    assert root.nsmap[None] == root.nsmap["ovf"] == _OVF.strip("{}")
    assert root.nsmap["rasd"] == _RASD.strip("{}")
    assert root.nsmap["vmw"] == _VMW.strip("{}")
    assert "vssd" in root.nsmap


def test_the_sections_stand_in_the_order_of_the_schema(root: etree._Element) -> None:
    assert [each.tag for each in root] == [
        f"{_OVF}{name}" for name in ("References", "DiskSection", "NetworkSection", "VirtualSystem")
    ]
    system = root.find(f"{_OVF}VirtualSystem")
    assert system is not None
    assert [each.tag for each in system] == [f"{_OVF}{name}" for name in _SECTIONS]


def test_what_an_item_holds_is_sorted_by_name(root: etree._Element) -> None:
    """The schema wants that order, and ESXi's host client says no more than "invalid"."""
    for item in root.iter(f"{_OVF}Item"):
        names = [each.tag for each in item]
        assert names == sorted(names)


def test_only_what_the_machine_can_not_be_without_is_required(root: etree._Element) -> None:
    """VirtualBox stops at a required item of a kind that it does not know: a video card, a CD drive."""
    for item in root.iter(f"{_OVF}Item"):
        kind = item.findtext(f"{_RASD}ResourceType")
        assert (item.get(f"{_OVF}required", "true") == "true") == (kind in _REQUIRED), kind


def test_every_file_is_a_disk_and_every_disk_has_a_file(root: etree._Element, disks: dict[str, bytes]) -> None:
    files = {each.get(f"{_OVF}id"): each for each in root.iter(f"{_OVF}File")}
    assert [each.get(f"{_OVF}href") for each in files.values()] == list(disks)
    assert [each.get(f"{_OVF}fileRef") for each in root.iter(f"{_OVF}Disk")] == list(files)
    assert all(f"{_OVF}compression" not in each.attrib for each in files.values())


def test_the_size_is_the_files_and_not_what_it_takes_on_a_disk(root: etree._Element, disks: dict[str, bytes]) -> None:
    """ "Wrong disk size" of ESXi: qemu-img's actual-size was taken for it."""
    sizes = {each.get(f"{_OVF}href"): int(each.get(f"{_OVF}size", "")) for each in root.iter(f"{_OVF}File")}
    assert sizes == {name: len(content) for name, content in disks.items()}


def test_the_populated_size_is_what_the_disk_has_stored(root: etree._Element) -> None:
    for disk in root.iter(f"{_OVF}Disk"):
        populated = int(disk.get(f"{_OVF}populatedSize", ""))
        assert 0 <= populated <= int(disk.get(f"{_OVF}capacity", "")) << 20
        assert (populated > 0) == (disk.get(f"{_OVF}diskId") == "system")


def test_the_operating_system_has_a_name_that_old_hosts_know(root: etree._Element) -> None:
    """A newer vmw:osType makes ESXi before its time refuse or ask; 96 is Debian, 64 bit, for everybody else."""
    (section,) = root.iter(f"{_OVF}OperatingSystemSection")
    assert (section.get(f"{_OVF}id"), section.get(f"{_VMW}osType")) == ("96", "debian10_64Guest")
    assert section.findtext(f"{_OVF}Description")


def test_nothing_that_only_an_export_has(root: etree._Element) -> None:
    """A VirtualBox machine in it would win over the rest; extra configuration and NVRAM stop VMware."""
    foreign = {each.tag for each in root.iter() if isinstance(each.tag, str) and each.tag.startswith(_VMW)}
    assert foreign == {f"{_VMW}Config"}
    (config,) = root.iter(f"{_VMW}Config")
    assert config.get(f"{_OVF}required") == "false"
    namespaces = {etree.QName(each).namespace for each in root.iter() if isinstance(each.tag, str)}
    assert not any("virtualbox" in (namespace or "") for namespace in namespaces)


def test_one_controller_for_all_disks_and_the_cd_on_a_known_one(root: etree._Element) -> None:
    by_kind: dict[str, list[etree._Element]] = {}
    for item in root.iter(f"{_OVF}Item"):
        by_kind.setdefault(item.findtext(f"{_RASD}ResourceType") or "", []).append(item)
    (scsi,), (ide,), (drive,) = by_kind["6"], by_kind["5"], by_kind["15"]
    assert scsi.findtext(f"{_RASD}ResourceSubType") == "lsilogic"
    assert {disk.findtext(f"{_RASD}Parent") for disk in by_kind["17"]} == {scsi.findtext(f"{_RASD}InstanceID")}
    assert drive.findtext(f"{_RASD}Parent") == ide.findtext(f"{_RASD}InstanceID")


def test_the_disks_say_the_same_controller_as_the_descriptor(disks: dict[str, bytes]) -> None:
    for name, content in disks.items():
        text = content[512 : 512 + 20 * 512].rstrip(b"\0").decode()
        assert 'createType="streamOptimized"' in text
        assert 'ddb.adapterType = "lsilogic"' in text
        assert f'"{name}"' in text
        assert re.search(r"^CID=(?!ffffffff)[0-9a-f]{8}$", text, re.MULTILINE)


def test_the_disks_are_of_version_3_and_end_once(disks: dict[str, bytes]) -> None:
    """Version 1 is "too old" for VMware, and behind the one end-of-stream marker it reads no further."""
    for content in disks.values():
        assert struct.unpack("<4sI", content[:8]) == (b"KDMV", 3)
        assert content[-512:] == bytes(512)
        assert content[-1024:-512] != bytes(512) or len(content) < 1 << 20


def test_the_tar_is_of_the_kind_that_all_can_read(ova: Path) -> None:
    """USTAR, no extended headers, nothing of who built it; nothing between the members."""
    with tarfile.open(ova) as tar:
        members = tar.getmembers()
    with ova.open("rb") as stream:
        for entry in members:
            stream.seek(entry.offset)
            header = stream.read(512)
            assert header[257:265] == b"ustar\x0000"
            assert header[156:157] == b"0"
            assert (entry.uid, entry.gid, entry.mode) == (0, 0, 0o644)
    for before, after in pairwise(members):
        assert after.offset == before.offset_data + -(-before.size // 512) * 512
