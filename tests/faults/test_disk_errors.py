"""A disk that gives errors for one file: found, repaired from the other copy, and nothing else touched.

strace injects the errors at the border to the kernel, for that file alone, in the commands as the timers run them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs.cli.instance import open_instance
from tests.planting import LocalSite, copies, double, store
from tests.synthetic import ct_study


def pacs(data: Path, *words: str, broken: Path | None = None, inject: str = "") -> tuple[int, dict[str, object]]:
    """Run a `pacs` command that prints JSON, some of its calls on a path failing: its exit code and what it printed."""
    command = [sys.executable, "-m", "pacs.cli.main", "--data", str(data), *words, "--json"]
    if broken is not None:
        if shutil.which("strace") is None:
            pytest.skip("strace is not here: apt-get install strace")
        name = inject.partition(":")[0]
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(broken), "-e", f"trace={name}",
                   "-e", f"inject={inject}", *command]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if "PTRACE" in found.stderr and not found.stdout:
        pytest.skip(f"strace cannot trace here: {found.stderr.strip()}")
    return found.returncode, json.loads(found.stdout)


@pytest.mark.parametrize("inject", ["openat:error=EACCES", "readv:error=EIO", "readv:error=EIO:when=2+"])
def test_a_file_that_cannot_be_read_is_found_and_repaired(new_instance: Callable[[], Path], inject: str) -> None:
    data = new_instance()
    with open_instance(data) as instance:
        store(instance, ct_study(1, 2, rows=800, columns=800))  # of more than one piece
        double(instance, instance.volumes.tier(2)[0])
        site = LocalSite(instance.volumes.tier(2)[0], Path(instance.volumes.tier(2)[0].location))
        victim, other = copies(instance, site.volume)
        before = site.get(victim["path"])
        broken = site.root / victim["path"]

        code, found = pacs(data, "scrub", "run", "--all", "--rate", "0", broken=broken, inject=inject)
        assert (code, found["bad"], found["missing"], found["copies"]) == (10, 1, 0, 4)
        code, done = pacs(data, "repair", "run", broken=broken, inject=inject)
        assert (code, done["repaired"], done["found_well"]) == (0, 1, 0)
        mended, same = copies(instance, site.volume)
        assert mended["state"] == "good" and mended["path"] != victim["path"]
        assert site.get(mended["path"]) == before
        assert same == other
        assert [site.get(path) for path in site.paths("quarantine")] == [before], "what it was put aside for is gone"


def test_a_file_that_could_not_be_read_for_a_while_and_has_no_other_copy_stays_where_it_is(
    new_instance: Callable[[], Path],
) -> None:
    """It is not proven wrong; when it can be read again it is back in service, under its old path."""
    data = new_instance()
    with open_instance(data) as instance:
        store(instance, ct_study(1, 2))
        site = LocalSite(instance.volumes.tier(1)[0], Path(instance.volumes.tier(1)[0].location))
        before = copies(instance)
        broken = site.root / before[0]["path"]
        inject = "openat:error=EACCES"
        assert pacs(data, "scrub", "run", "--all", broken=broken, inject=inject)[0] == 10
        code, done = pacs(data, "repair", "run", broken=broken, inject=inject)
        assert (code, done["waiting"], done["quarantined"]) == (10, 1, 0)
        assert broken.is_file()
        assert pacs(data, "repair", "run")[1]["found_well"] == 1
        assert copies(instance) == before


def test_a_file_without_a_row_that_cannot_be_read_is_left_where_it_is(new_instance: Callable[[], Path]) -> None:
    """It may be whole, and the only one."""
    data = new_instance()
    with open_instance(data) as instance:
        store(instance, ct_study(1, 1))
        root = Path(instance.volumes.tier(1)[0].location)
        (row,) = copies(instance)
        with instance.database.transaction() as connection:
            connection.execute("DELETE FROM copy")
            connection.execute("DELETE FROM object")
        broken, hour_ago = root / row["path"], time.time() - 4000
        os.utime(broken, (hour_ago, hour_ago))
        code, found = pacs(data, "reconcile", "run", broken=broken, inject="openat:error=EACCES")
        assert (code, found["unreadable"], found["quarantined"], found["indexed"]) == (4, 1, 0, 0)
        assert broken.is_file()
        assert pacs(data, "reconcile", "run")[1]["indexed"] == 1


def test_a_folder_that_cannot_be_listed_is_told_of(new_instance: Callable[[], Path]) -> None:
    data = new_instance()
    with open_instance(data) as instance:
        store(instance, ct_study(1, 2))
        site = LocalSite(instance.volumes.tier(1)[0], Path(instance.volumes.tier(1)[0].location))
        folder = (site.root / copies(instance)[0]["path"]).parent
        code, found = pacs(data, "reconcile", "run", broken=folder, inject="getdents64:error=EIO")
        assert (code, found["missing"], found["quarantined"]) == (4, 0, 0)
        assert found["failed"]
        assert all(row["state"] == "good" for row in copies(instance))
        assert pacs(data, "reconcile", "run")[0] == 0
