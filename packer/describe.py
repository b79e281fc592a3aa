"""The finished system disk says what it is: the list of its parts, which goes into it too, and the manifest."""

from __future__ import annotations

from pathlib import Path

from packer.ova.export import Release
from packer.progress import run_logged
from packer.rootfs import as_raw, open_rootfs
from packer.sbom.document import IN_IMAGE, sbom
from packer.tree import entries_of, write_tree

_REMEDY = "Read the log; when the disk is full, make room and start again."


def describe(system: Path, folder: Path, release: Release, log: Path) -> tuple[Path, Path]:
    """Write list and manifest into `folder`, and the list into the qcow2 `system`; both files."""
    parts, tree = folder / f"{release.stem}.cdx.json", folder / f"{release.stem}.tree"
    finished = system.with_name("described.qcow2")
    with as_raw(system, folder) as raw:
        with open_rootfs(raw, folder) as root:
            parts.write_text(sbom(root, release), "utf-8")
            root.write(IN_IMAGE, parts, release.epoch_s)
            write_tree(entries_of(root), tree)
            # debugfs has written into it: the file system must still be sound.
            run_logged(["e2fsck", "-fn", root.place], log, remedy=_REMEDY)
        run_logged(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, finished], log, remedy=_REMEDY)
    finished.rename(system)
    return parts, tree
