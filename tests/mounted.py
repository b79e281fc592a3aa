"""Real file systems for tests: ext4 on a loop device, mounted, grown, taken away. As root only; else they skip."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class FileSystem:
    """An ext4 file system in a file, with a place where it is mounted."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.image, self.root = folder.with_suffix(".img"), folder
        self.root.mkdir()
        with self.image.open("wb") as file:
            file.truncate(size_mib << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self.image))

    def mount(self, options: str = "rw") -> None:
        """Mount it; skip where that cannot be."""
        done = _run("mount", "-o", f"loop,{options}", str(self.image), str(self.root), check=False)
        if done.returncode != 0:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")

    def remount(self, options: str) -> None:
        """Change its options."""
        _run("mount", "-o", f"remount,{options}", str(self.root))

    def unmount(self) -> None:
        """Take it away, in use or not."""
        _run("umount", "--lazy", str(self.root))


@contextmanager
def file_system(folder: Path, size_mib: int = 128) -> Iterator[FileSystem]:
    """A mounted file system."""
    made = FileSystem(folder, size_mib)
    made.mount()
    try:
        yield made
    finally:
        _run("umount", "--lazy", str(made.root), check=False)
        made.image.unlink()


def _run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=check)
