"""The Vagrant box for libvirt, version 1: the system disk alone. The Vagrantfile of the user adds the data disks."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

from packer.ova.package import member, tar_format

GIB = 1024**3

# The image has no Vagrant user and no well-known key: the user's Vagrantfile brings both in a NoCloud seed.
VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.vm.guest = :debian
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.vm.provider :libvirt do |libvirt|
    libvirt.disk_bus = "scsi"
  end
end
"""


def metadata(capacity_bytes: int) -> str:
    """metadata.json; the virtual size is in whole GiB, rounded up."""
    size_gib = -(-capacity_bytes // GIB)
    return json.dumps({"format": "qcow2", "provider": "libvirt", "virtual_size": size_gib}, sort_keys=True) + "\n"


def write_box(target: Path, qcow2: Path, capacity_bytes: int, mtime: int) -> None:
    """Write the box: metadata.json, Vagrantfile, box.img."""
    texts = [("metadata.json", metadata(capacity_bytes).encode()), ("Vagrantfile", VAGRANTFILE.encode())]
    size_bytes = qcow2.stat().st_size
    # Level 1: what is inside is compressed already. No name and no time in the header, so equal boxes are equal files.
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=mtime) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tar_format([size_bytes])) as tar,
    ):
        for name, content in texts:
            tar.addfile(member(name, len(content), mtime), io.BytesIO(content))
        with qcow2.open("rb") as stream:
            tar.addfile(member("box.img", size_bytes, mtime), stream)
