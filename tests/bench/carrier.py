"""What carries objects to a repository: our sealed volume, rclone's crypt remote, or restic given the new files only.

    python -m tests.bench.carrier [--objects 2000] [--more 1000] [--size 8192] [--work /var/tmp]
                                  [--only pacs rclone restic]

    files made ─▶ all of them put ─▶ a thousand more put, as they come within minutes ─▶ one found by its digest, read
               ─▶ all read back and compared

All write to a folder on the same disk, one after the other, each with what it writes synced at the end. Time is wall
time, memory the largest process. 5 million objects of 8 kB take 60 GB a carrier and some hours: --objects 5000000.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pacs.storage.files import LocalVolume
from pacs.storage.keyring import Keyring
from pacs.storage.kinds import ToPut
from pacs.storage.names import repository_path
from pacs.storage.sealed import ABOUT_FILE, About, SealedVolume
from pacs.storage.volume import create_identity

_BATCH = 1024
_FOUND = 10
_FILES_A_FOLDER = 1000


class Carrier(Protocol):
    """One way to keep objects in a repository."""

    name: str

    def put(self, source: Path, names: Sequence[str]) -> None:
        """Put files below source, and have them on the disk."""

    def find(self, name: str) -> bytes:
        """One object's bytes."""

    def read_back(self, source: Path, names: Sequence[str]) -> None:
        """Read all that was put and compare it. Raise if any of it differs."""


class Sealed:
    """Ours: pacs/storage/sealed.py on a folder."""

    name = "pacs"

    def __init__(self, work: Path) -> None:
        root = work / "pacs"
        root.mkdir()
        identity, keyring = create_identity(root, ("tier4",)), Keyring.make()
        inner = LocalVolume(root, "tier4")
        inner.replace_small(ABOUT_FILE, About(identity.appliance_id, identity.volume_id, keyring.ring_id).content())
        self.volume = SealedVolume(inner, keyring)

    def put(self, source: Path, names: Sequence[str]) -> None:
        """In batches, as shipping puts them."""
        for start in range(0, len(names), _BATCH):
            batch = [
                ToPut(_path(name), _chunks(source / name), (source / name).stat().st_size)
                for name in names[start : start + _BATCH]
            ]
            outcomes = self.volume.put_many(batch)
            assert all(isinstance(each, bytes) for each in outcomes), outcomes

    def find(self, name: str) -> bytes:
        """Where its digest says."""
        return b"".join(self.volume.read(_path(name)))

    def read_back(self, source: Path, names: Sequence[str]) -> None:
        """Past the caches, opened, each digest compared."""
        for name in names:
            assert self.volume.digest_on_disk(_path(name)).hex() == name.rpartition("/")[2]


class Rclone:
    """rclone copying to its crypt remote over a folder: a file to a file."""

    name = "rclone"

    def __init__(self, work: Path) -> None:
        self._work = work
        (work / "rclone").mkdir()
        secret = subprocess.run(["rclone", "obscure", "a password"], capture_output=True, text=True, check=True).stdout
        self._environment = os.environ | {
            "RCLONE_CONFIG_SEALED_TYPE": "crypt",
            "RCLONE_CONFIG_SEALED_REMOTE": str(work / "rclone"),
            "RCLONE_CONFIG_SEALED_FILENAME_ENCRYPTION": "off",
            "RCLONE_CONFIG_SEALED_DIRECTORY_NAME_ENCRYPTION": "false",
            "RCLONE_CONFIG_SEALED_PASSWORD": secret.strip(),
        }

    def _run(self, *words: str) -> bytes:
        command = ["rclone", "--config", os.devnull, "--quiet", *words]
        return subprocess.run(command, env=self._environment, capture_output=True, check=True).stdout

    def put(self, source: Path, names: Sequence[str]) -> None:
        """The new files only, by name: it need not list what is there."""
        listing = self._work / "rclone.txt"
        listing.write_text("".join(f"{name}\n" for name in names))
        self._run(
            "copy", "--no-traverse", "--no-check-dest", "--transfers", "8", "--files-from-raw", str(listing),
            str(source), "sealed:",
        )  # fmt: skip
        os.sync()

    def find(self, name: str) -> bytes:
        """By its path."""
        return self._run("cat", f"sealed:{name}")

    def read_back(self, source: Path, names: Sequence[str]) -> None:
        """All of it opened and compared with its source: `check --download`."""
        self._run("check", "--download", "--one-way", "--checkers", "8", str(source), "sealed:")


class Restic:
    """restic, given only the new files: a snapshot a turn."""

    name = "restic"

    def __init__(self, work: Path) -> None:
        self._work = work
        self._environment = os.environ | {
            "RESTIC_REPOSITORY": str(work / "restic"), "RESTIC_PASSWORD": "a password",
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
        }  # fmt: skip
        self._run("init")

    def _run(self, *words: str, folder: Path | None = None) -> bytes:
        command = ["restic", "--quiet", *words]
        return subprocess.run(command, env=self._environment, capture_output=True, check=True, cwd=folder).stdout

    def put(self, source: Path, names: Sequence[str]) -> None:
        """A snapshot of the new files."""
        listing = self._work / "restic.txt"
        listing.write_text("".join(f"{name}\0" for name in names))
        self._run("backup", "--files-from-raw", str(listing), "--host", "pacs", folder=source)
        os.sync()

    def find(self, name: str) -> bytes:
        """In the newest snapshot, which here has it: in which one it is would have to be known."""
        return self._run("dump", "latest", f"/{name}")

    def read_back(self, source: Path, names: Sequence[str]) -> None:
        """Every pack of it."""
        self._run("check", "--read-data")


CARRIERS: dict[str, type[Sealed] | type[Rclone] | type[Restic]] = {
    "pacs": Sealed, "rclone": Rclone, "restic": Restic,
}  # fmt: skip


@dataclass
class Figures:
    """What one carrier took [s], and its largest process [bytes]."""

    name: str
    put_s: float = 0.0
    more_s: float = 0.0
    find_s: float = 0.0
    read_s: float = 0.0
    memory_bytes: int = 0
    files: int = 0
    size_bytes: int = 0


def make_files(root: Path, objects: int, size_bytes: int, seed: int) -> list[str]:
    """Write files of random bytes, named by their digests, a thousand a folder; return their names."""
    source, names = random.Random(seed), []
    for number in range(objects):
        folder = root / f"{seed}-{number // _FILES_A_FOLDER:05}"
        if number % _FILES_A_FOLDER == 0:
            folder.mkdir(parents=True)
        content = source.randbytes(size_bytes)
        name = hashlib.sha256(content).hexdigest()
        (folder / name).write_bytes(content)
        names.append(f"{folder.name}/{name}")
    os.sync()
    return names


def measure(carrier: Carrier, source: Path, names: Sequence[str], more: Sequence[str], place: Path) -> Figures:
    """One carrier: all files, then some more, then one found, then all read back."""
    found = Figures(carrier.name)
    with _timed(found, "put_s"):
        carrier.put(source, names)
    with _timed(found, "more_s"):
        carrier.put(source, more)
    times = []
    for name in random.Random(1).sample(list(more), min(_FOUND, len(more))):
        _forget_caches()
        began = time.monotonic()
        content = carrier.find(name)
        times.append(time.monotonic() - began)
        assert hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]
    found.find_s = statistics.median(times)
    _forget_caches()
    with _timed(found, "read_s"):
        carrier.read_back(source, [*names, *more])
    who = resource.RUSAGE_SELF if carrier.name == "pacs" else resource.RUSAGE_CHILDREN
    found.memory_bytes = resource.getrusage(who).ru_maxrss << 10
    for path in place.rglob("*"):
        if path.is_file():
            found.files += 1
            found.size_bytes += path.stat().st_size
    return found


@contextlib.contextmanager
def _timed(figures: Figures, name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    setattr(figures, name, time.monotonic() - began)


def _forget_caches() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("1")


def _path(name: str) -> str:
    return repository_path(bytes.fromhex(name.rpartition("/")[2]))


def _chunks(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()


def table(found: Sequence[Figures], objects: int, more: int, size_bytes: int) -> str:
    """As Markdown."""
    lines = [
        f"{objects:,} objects of {size_bytes:,} bytes, then {more:,} more.",
        "",
        "| carrier | all put [1/s] | more put [s] | one found and read [ms] | all read back [1/s] | memory [MB] |"
        " files | size [GB] |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {objects / each.put_s:.0f} | {each.more_s:.2f} | {1000 * each.find_s:.1f} |"
        f" {(objects + more) / each.read_s:.0f} | {each.memory_bytes / 1e6:.0f} | {each.files:,} |"
        f" {each.size_bytes / 1e9:.2f} |"
        for each in found
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--objects", type=int, default=2000)
    words.add_argument("--more", type=int, default=1000)
    words.add_argument("--size", type=int, default=8192)
    words.add_argument("--work", type=Path, default=Path("/var/tmp"))
    words.add_argument("--only", nargs="*", choices=list(CARRIERS), default=list(CARRIERS))
    given = words.parse_args()
    missing = [each for each in given.only if each != "pacs" and shutil.which(each) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} missing: requirements/ensure-debian requirements/debian-bench.txt")
    work = Path(tempfile.mkdtemp(prefix="carrier-", dir=given.work))
    try:
        source = work / "source"
        names = make_files(source, given.objects, given.size, seed=1)
        more = make_files(source, given.more, given.size, seed=2)
        found = []
        for each in given.only:
            found.append(measure(CARRIERS[each](work), source, names, more, work / each))
            print(f"bench: {found[-1]}", flush=True)
            shutil.rmtree(work / each)
        print(table(found, given.objects, given.more, given.size))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
