"""Moving, scrubbing and rebuilding measured beside `cp` and `sha256sum`, on small objects on three tiers, in one run.

    python -m tests.bench.storage [--objects 1000000] [--moved 200000] [--large 4000] [--work /var/tmp]
                                  [--write docs/reference/performance.md]

    large objects made ─▶ sha256sum of all | pacs index rebuild
    small objects made on tier 1 ─▶ sha256sum of all | pacs index rebuild ─▶ sha256sum of all | scrub of all
        ─▶ cp -r, sync and sha256sum of the copies | the same studies moved to tier 2 ─▶ the same to tier 3

Before each measurement the page cache is dropped if we may (root), else it is said that it was not. Every tier is a
folder on one disk, so what is measured is what ours costs more than the plain tools do on the same files. As many
sha256sum run at once as there are cores, as the rebuild does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pacs.archive.move_group import Pass
from pacs.cli.cluster import Cluster
from pacs.cli.dev import unprivileged_user
from pacs.cli.instance import open_instance
from pacs.index import database as index
from pacs.settings import load
from pacs.storage.receipts import Receipts
from pacs.storage.volume import create_identity
from tests.bench.report import machine, put
from tests.bench.small_objects import OBJECTS_A_STUDY, ROWS, make_objects

#: Bytes on the disk that an object takes, once a tier and copy.
_DISK_BYTES_AN_OBJECT = 5000
_LARGE_ROWS = 512
_PARTS = ("rebuild", "scrub", "move")
_COPYING = "cp -r; sync; sha256sum"
#: As pacs/cli/priority.py has it.
_GIVING_WAY = "nice -n 10 ionice -c 3"


@dataclass
class Figures:
    """Rates of both sides [objects/s], and the objects' size [bytes]."""

    is_cold: bool = True
    rows: list[tuple[str, int, float, str, float, float]] = field(default_factory=list)

    def add(self, what: str, objects: int, size_bytes: float, beside: str, theirs_s: float, ours_s: float) -> None:
        """Note one comparison, and show it."""
        self.rows.append((what, objects, size_bytes, beside, objects / theirs_s, objects / ours_s))
        print(f"bench: {what}: {objects / ours_s:.0f}/s, {beside}: {objects / theirs_s:.0f}/s", flush=True)

    def table(self) -> str:
        """As Markdown."""
        lines = [
            "| what | objects | each [kB] | beside | beside [1/s] | pacs [1/s] | pacs [MB/s] | ours ÷ theirs |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {what} | {objects} | {size / 1000:.0f} | {beside} | {theirs:.0f} | {ours:.0f} | {ours * size / 1e6:.0f}"
            f" | **{ours / theirs:.2f}** |"
            for what, objects, size, beside, theirs, ours in self.rows
        ]
        return "\n".join(lines)


class Bench:
    """One run in a folder of its own, with objects of rows × rows pixels."""

    def __init__(self, work: Path, figures: Figures, objects: int, rows: int = ROWS) -> None:
        self.work, self.figures, self.objects, self.rows = work, figures, objects, rows
        work.mkdir()
        work.chmod(0o755)
        self.data = work / "data"
        (self.data / "config").mkdir(parents=True)
        create_identity(self.data, ("state",))
        (self.data / "config" / "pacs.toml").write_text("settle_s = 0\n")
        self.cluster = Cluster(self.data, unprivileged_user(self.data))
        self.processes = os.cpu_count() or 1

    def run(self, moved: int, parts: Sequence[str]) -> None:
        """All of it, or some parts."""
        with self._running():
            self._make()
            if "rebuild" in parts:
                self._rebuild()
            else:
                self._pacs("index", "rebuild", "--trust-names")
            if "scrub" in parts:
                self._scrub()
            if "move" in parts:
                self._move(moved)

    def run_rebuild(self) -> None:
        """The rebuild alone."""
        with self._running():
            self._make()
            self._rebuild()

    @contextmanager
    def _running(self) -> Iterator[None]:
        self.cluster.start()
        try:
            yield
        finally:
            self.cluster.stop()
            shutil.rmtree(self.work, ignore_errors=True)

    def _make(self) -> None:
        database = index.Database(load(self.data).conninfo)
        index.migrate(database)
        database.close()
        with open_instance(self.data):
            pass  # makes tiers 1 and 2
        count, size = make_objects(self.data / "tier1", Receipts(self.data), self.objects, rows=self.rows)
        self.objects, self.size_bytes = count, size
        print(f"bench: {count} objects of {size / count:.0f} bytes made", flush=True)

    def _rebuild(self) -> None:
        theirs = self._timed(lambda: self._sha256sum(self.data / "tier1" / "objects"))
        ours = self._timed(lambda: self._pacs("index", "rebuild"))
        self._add("rebuild", self.objects, "sha256sum", theirs, ours)
        ours = self._timed(lambda: self._pacs("index", "rebuild", "--replace", "--trust-names"))
        self._add("rebuild --trust-names", self.objects, "sha256sum", theirs, ours)

    def _scrub(self) -> None:
        # A scrub gives way to everything else on the machine; what it is measured beside has to do so too.
        theirs = self._timed(lambda: self._sha256sum(self.data / "tier1" / "objects", _GIVING_WAY))
        ours = self._timed(lambda: self._pacs("scrub", "run", "--all", "--rate", "0"))
        self._add("scrub", self.objects, "sha256sum", theirs, ours)

    def _move(self, moved: int) -> None:
        """The oldest studies down to tier 2, then those to tier 3; beside it the same folders copied and read back."""
        studies = moved // OBJECTS_A_STUDY
        count = studies * OBJECTS_A_STUDY
        (self.work / "tier3").mkdir()
        self._pacs("volume", "add", "far", str(self.work / "tier3"), "--tier", "3", "--on-system-disk")
        for source, target in ((1, 2), (2, 3)):
            copies = self.work / f"copies{target}"
            folders = sorted((self.data / f"tier{source}" / "objects").glob("*/*/*/*/*"))[:studies]  # the oldest
            theirs = self._timed(lambda folders=folders, copies=copies: self._copy(folders, copies))
            shutil.rmtree(copies)
            done = Pass()
            ours = self._timed(
                lambda source=source, target=target, done=done: self._move_down(source, target, count, done)
            )
            theirs *= done.objects / count  # studies are not of one size: some more went, or fewer
            self._add(f"move from tier {source} to tier {target}", done.objects, _COPYING, theirs, ours)

    def _move_down(self, source: int, target: int, objects: int, done: Pass) -> None:
        from pacs.archive.move import Mover
        from pacs.model.tier_rules import Look, Rule

        size_bytes = self.size_bytes * objects // self.objects
        with open_instance(self.data) as instance:
            mover = Mover(instance.database, instance.volumes, 0)
            mover.follow_rule(Rule("bench", source, target), Look(True, size_bytes, "bench"), done)
            mover.close()
        assert done.failed == 0 and abs(done.objects / objects - 1) < 0.01, done

    def _add(self, what: str, objects: int, beside: str, theirs_s: float, ours_s: float) -> None:
        self.figures.add(what, objects, self.size_bytes / self.objects, beside, theirs_s, ours_s)

    # --- the plain tools ----------------------------------------------------------------------------------------------

    def _sha256sum(self, folder: Path, before: str = "") -> None:
        sums = f"xargs -0 -P {self.processes} -n 500 {before} sha256sum"
        command = f"find {folder} -name '*.dcm' -print0 | {sums} > /dev/null"
        subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)

    def _copy(self, folders: list[Path], target: Path) -> None:
        target.mkdir()
        listing = self.work / "folders"
        listing.write_bytes(b"".join(bytes(folder) + b"\0" for folder in folders))
        command = f"xargs -0 -n 200 cp -r -t {target} < {listing}"
        subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)
        os.sync()
        drop_caches()  # what is read back has to come from the disk, as ours does
        self._sha256sum(target)

    def _pacs(self, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "pacs.cli.main", "--data", str(self.data), *words], check=True)

    def _timed(self, work: Callable[[], None]) -> float:
        os.sync()
        self.figures.is_cold &= drop_caches()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def drop_caches() -> bool:
    """Have the kernel forget what it read of the disks; False if we may not."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def about(figures: Figures, seconds: float) -> str:
    """What was measured, in words."""
    cold = "cold page cache" if figures.is_cold else "warm page cache (not root: it could not be dropped)"
    return f"All tiers on one disk, {cold}, {seconds / 60:.0f} minutes. {machine()}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.storage")
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--moved", type=int, help="how many of them are moved; default: a fifth")
    parser.add_argument("--large", type=int, default=10_000, help="how many objects of 526 kB; 0: none")
    parser.add_argument("--parts", nargs="+", default=_PARTS, choices=_PARTS, help="what is measured of small ones")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="a folder on the disk that is measured")
    parser.add_argument("--write", type=Path, help="write the table here")
    options = parser.parse_args()
    moved = options.moved or options.objects // 5
    needed = (
        2 * 530_000 * options.large + _DISK_BYTES_AN_OBJECT * (options.objects + 2 * moved) + 6000 * options.objects
    )
    if shutil.disk_usage(options.work).free < needed:
        sys.exit(f"{needed / 1e9:.0f} GB are needed in {options.work}. Make room, or ask for fewer --objects.")
    began = time.perf_counter()
    work = Path(tempfile.mkdtemp(prefix="pb-", dir=options.work))
    work.chmod(0o755)
    figures = Figures()
    try:
        if options.large:
            Bench(work / "large", figures, options.large, rows=_LARGE_ROWS).run_rebuild()
        Bench(work / "small", figures, options.objects).run(moved, options.parts)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    seconds = time.perf_counter() - began
    print(figures.table())
    print(f"in {seconds / 60:.1f} minutes" + ("" if figures.is_cold else ", with a warm page cache"))
    if options.write:
        put(options.write, "storage bench", f"{about(figures, seconds)}\n\n{figures.table()}")


if __name__ == "__main__":
    main()
