"""Backup and restore measured beside `cp` and restic alone, on the same objects and disk, in one run.

    python -m tests.bench.backup [--objects 100000] [--rows 64] [--work /var/tmp]
                                 [--write docs/reference/performance.md]

    objects made, indexed ─▶ cp -r, sync, sha256sum of the copies | restic backup, check --read-data
        | shipped to a repository, sealed and read back, and the database backed up
    all of the archive gone ─▶ cp -r back, sync | restic restore --verify | pacs restore: searchable, then all is back

Ours and restic encrypt, cp does not. What is written is read back past caches in each, as ours does it anyway. The page
cache is dropped before each, if we may. 100,000 objects of 8 kB take five minutes and 5 GB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from pacs.archive.recall import Behind
from pacs.backup.keys import master_key
from pacs.backup.repositories import repositories
from pacs.backup.shipping import Shipper
from pacs.cli.cluster import Cluster
from pacs.cli.dev import unprivileged_user
from pacs.cli.instance import open_instance
from pacs.index import restores
from tests.bench.report import put
from tests.bench.small_objects import ROWS
from tests.bench.storage import Bench, Figures, about, drop_caches

_RESTIC = {"RESTIC_PASSWORD": "bench"}


class BackupBench(Bench):
    """One run of backup and restore."""

    def run_backup(self) -> None:
        """All of it."""
        with self._running():
            self._make()
            self._pacs("index", "rebuild")
            self._back_up()
            self.cluster.stop()
            self._restore()

    def _back_up(self) -> None:
        source, copied = self.data / "tier1" / "objects", self.work / "copied"
        cp_s = self._timed(lambda: self._copy([source], copied))
        restic_s = self._timed(lambda: self._restic_backup(source))
        place = self.work / "repository"
        place.mkdir(mode=0o755)
        self._pacs("backup", "repository", "add", "usb", "--place", str(place), "--on-system-disk")
        ship_s = self._timed(self._ship)
        database_s = self._timed(lambda: self._pacs("backup", "run", "--full"))
        print(f"bench: the database's backup took {database_s:.1f} s", flush=True)
        (self.work / "sheet").write_text(master_key(self.data).text + "\n")
        self._add("ship", self.objects, "cp -r; sync; sha256sum", cp_s, ship_s + database_s)
        self._add("ship", self.objects, "restic backup; check --read-data", restic_s, ship_s + database_s)

    def _restore(self) -> None:
        shutil.rmtree(self.data)
        back = self.work / "back"
        cp_s = self._timed(lambda: self._copy([self.work / "copied" / "objects"], back))
        shutil.rmtree(back)
        restic_s = self._timed(lambda: self._restic("restore", "latest", f"--target={back}", "--verify"))
        shutil.rmtree(back)
        self.data = self.work / "new"
        searchable_s = self._timed(self._restore_searchable)
        print(f"bench: searchable after {searchable_s:.1f} s", flush=True)
        self.cluster = Cluster(self.data, unprivileged_user(self.work))
        self.cluster.start()
        whole_s = searchable_s + self._timed(self._bring_back)
        self._add("restore, searchable", self.objects, "cp -r; sync; sha256sum", cp_s, searchable_s)
        self._add("restore, all of it", self.objects, "cp -r; sync; sha256sum", cp_s, whole_s)
        self._add("restore, all of it", self.objects, "restic restore --verify", restic_s, whole_s)

    # --- ours ---------------------------------------------------------------------------------------------------------

    def _ship(self) -> None:
        with open_instance(self.data) as instance:
            shipper, shipped = Shipper(instance.database, instance.volumes), 0
            (repository,) = repositories(self.data)
            while shipped < self.objects:
                done = shipper.run(repository)
                assert done.objects and not done.error, done
                shipped += done.objects
            shipper.close()

    def _restore_searchable(self) -> None:
        words = ("--repository", str(self.work / "repository"), "--sheet", str(self.work / "sheet"), "--yes")
        self._pacs("restore", *words, "--to-the-end", "--the-old-one-is-gone")

    def _bring_back(self) -> None:
        with open_instance(self.data) as instance:
            behind = Behind(instance.database, instance.volumes, 100, threading.Event())
            while not restores.finish_bulk(instance.database):
                assert behind.run(), "nothing comes back"
            behind.close()
            found = restores.newest_restore(instance.database)
        assert found is not None and found["done_objects"] == self.objects, found

    # --- the plain tools ----------------------------------------------------------------------------------------------

    def _restic_backup(self, source: Path) -> None:
        self._restic("init")
        self._restic("backup", str(source))
        os.sync()
        drop_caches()
        self._restic("check", "--read-data")

    def _restic(self, *words: str) -> None:
        command = ["restic", "--no-cache", "--quiet", "--repo", str(self.work / "restic"), *words]
        subprocess.run(command, env={**os.environ, **_RESTIC}, check=True, stdout=subprocess.DEVNULL)
        os.sync()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backup")
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows and columns of an object: 512 are 526 kB")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="a folder on the disk that is measured")
    parser.add_argument("--write", type=Path, help="write the table here")
    options = parser.parse_args()
    needed = options.objects * (6 * (options.rows**2 * 2 + 4096) + 8000)
    if shutil.disk_usage(options.work).free < needed:
        sys.exit(f"{needed / 1e9:.0f} GB are needed in {options.work}. Make room, or ask for fewer --objects.")
    began, figures = time.perf_counter(), Figures()
    work = Path(tempfile.mkdtemp(prefix="pb-", dir=options.work))
    work.chmod(0o755)
    try:
        BackupBench(work / "run", figures, options.objects, options.rows).run_backup()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    seconds = time.perf_counter() - began
    print(figures.table())
    print(f"in {seconds / 60:.1f} minutes" + ("" if figures.is_cold else ", with a warm page cache"))
    if options.write:
        put(options.write, "backup bench", f"{about(figures, seconds)}\n\n{figures.table()}")


if __name__ == "__main__":
    main()
