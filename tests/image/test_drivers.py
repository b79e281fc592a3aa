"""The drivers of hypervisors that QEMU can't be: in the initramfs of the disk as it is delivered, not booted.

LSI Logic parallel (53C1030, mptspi) on VMware and VirtualBox, Xen's disks and network, Hyper-V's.
"""

from __future__ import annotations

import pytest

from tests.image import initramfs
from tests.image.filesystem import RootFilesystem

_NEEDED = {
    "VMware, VirtualBox": ("mptspi", "mptscsih", "mptsas", "vmw_pvscsi", "vmxnet3", "ahci", "e1000", "e1000e"),
    "Xen": ("xen-blkfront", "xen-netfront"),
    "Hyper-V": ("hv_vmbus", "hv_storvsc", "hv_netvsc", "hyperv-keyboard"),
    "KVM": ("virtio_scsi", "virtio_blk", "virtio_net", "virtio_pci", "nvme"),
    "bare servers": ("ahci", "nvme", "megaraid_sas", "mpt3sas", "ata_piix"),
    "every one": ("sd_mod", "sr_mod", "ext4"),
}


@pytest.fixture(scope="module")
def kernels(root: RootFilesystem) -> list[str]:
    """The versions of the kernels on the disk."""
    return [name.removeprefix("vmlinuz-") for name in root.names("/boot") if name.startswith("vmlinuz-")]


@pytest.fixture(scope="module")
def modules(root: RootFilesystem, kernels: list[str]) -> dict[str, set[str]]:
    """By kernel, the modules in its initramfs and those that are built into it."""
    found = {}
    for version in kernels:
        inside = initramfs.names(root.read(f"/boot/initrd.img-{version}"))
        built_in = root.read(f"/usr/lib/modules/{version}/modules.builtin").decode().split()
        found[version] = {_module(path) for path in (*inside, *built_in) if ".ko" in path}
    return found


def _module(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0]


@pytest.mark.parametrize("where", _NEEDED)
def test_the_initramfs_has_what_boots_there(where: str, modules: dict[str, set[str]]) -> None:
    assert modules
    for version, there in modules.items():
        missing = sorted(set(_NEEDED[where]) - there)
        assert missing == [], f"{version}: {missing}"
