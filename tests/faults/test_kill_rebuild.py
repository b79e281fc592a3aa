"""kill -9 of a rebuild at any moment, and of PostgreSQL below it: started again it goes on, and the result is the same.

The index that is there is not touched before the end: after each kill it is either the old one or the new one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pacs.archive.rebuild_mark import MARK
from pacs.cli.cluster import Cluster
from pacs.cli.dev import unprivileged_user
from pacs.cli.instance import open_instance
from pacs.index import database as index
from pacs.index.databases import Databases
from pacs.settings import load
from pacs.storage.receipts import Receipts
from pacs.storage.volume import create_identity
from tests.bench.small_objects import make_objects
from tests.faults.process import kill
from tests.index_rows import all_rows
from tests.integration.test_rebuild import Archive, live

KILLS = int(os.environ.get("PACS_KILLS", "200"))


class Killed:
    """An instance with a cluster of its own, whose rebuilds are killed."""

    def __init__(self, data: Path, objects: int) -> None:
        self.data = data
        (data / "config").mkdir(parents=True)
        create_identity(data, ("state",))
        (data / "config" / "pacs.toml").write_text("settle_s = 0\n")
        self.cluster = Cluster(data, unprivileged_user(data))
        self.cluster.start()
        self.conninfo = load(data).conninfo
        database = index.Database(self.conninfo)
        index.migrate(database)
        database.close()
        with open_instance(data) as opened:
            live(Archive(opened))
        make_objects(data / "tier1", Receipts(data), objects, studies_a_day=1)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Begin a rebuild in a process of its own."""
        command = [sys.executable, "-m", "pacs.cli.main", "--data", str(self.data), "index", "rebuild", "--json"]
        return subprocess.Popen([*command, "--processes", "2", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self, *words: str) -> dict[str, object]:
        """Run a rebuild to its end."""
        out, err = (process := self.begin(*words)).communicate(timeout=240)
        assert process.returncode == 0, err.decode()
        assert not (self.data / MARK).exists()
        found: dict[str, object] = json.loads(out)
        return found

    def kill_postgresql(self) -> None:
        """SIGKILL to the postmaster, then start it again: what was not logged is gone."""
        kill(int((self.cluster.cluster / "postmaster.pid").read_text().split()[0]))
        self.cluster.start()

    def rows(self) -> dict[str, list[str]] | None:
        """The rows of the index that is in place; None while it is closed to all."""
        with psycopg.connect(self.conninfo.replace("dbname=pacs", "dbname=postgres")) as connection:
            row = connection.execute("SELECT datallowconn FROM pg_database WHERE datname = 'pacs'").fetchone()
        assert row is not None, "there is always an index"
        return all_rows(self.conninfo) if row[0] else None


@pytest.fixture
def make_killed(short_folder: Path) -> Iterator[Callable[[str, int], Killed]]:
    made: list[Killed] = []

    def make(name: str, objects: int) -> Killed:
        made.append(Killed(short_folder / name, objects))
        return made[-1]

    yield make
    for each in made:
        each.cluster.stop()


def _kill_again_and_again(killed: Killed, kills: int, seed: int, postgresql_every: int) -> tuple[int, int]:
    """Kill so many rebuilds; return how many came to their end before that, and how many were at work."""
    moments, whole, inside = random.Random(seed), 0, 0
    killed.finish("--replace")
    expected, longest_s = killed.rows(), 2.0
    assert expected is not None
    for number in range(1, kills + 1):
        process = killed.begin("--replace")
        began_s = time.monotonic()
        try:
            process.wait(moments.uniform(0.2, longest_s))
            assert process.returncode == 0, process.communicate()[1].decode()
            whole += 1
            longest_s = max(2.0, 1.2 * (time.monotonic() - began_s))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            inside += (killed.data / MARK).exists()
        if number % postgresql_every == 0:
            killed.kill_postgresql()
            for name in Databases(killed.conninfo).replaced():
                Databases(killed.conninfo).drop(name)
        assert killed.rows() in (None, expected)
    killed.finish(*(() if (killed.data / MARK).exists() else ("--replace",)))
    assert killed.rows() == expected
    return whole, inside


def test_a_rebuild_that_is_killed_goes_on(make_killed: Callable[[str, int], Killed]) -> None:
    _kill_again_and_again(make_killed("killed", 600), 4, seed=1, postgresql_every=3)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_rebuild_that_is_killed_again_and_again(make_killed: Callable[[str, int], Killed]) -> None:
    whole, inside = _kill_again_and_again(make_killed("killedlong", 10_000), KILLS, seed=2, postgresql_every=10)
    print(f"killed {KILLS - whole} times, {inside} of them at work; {whole} came to their end")
    assert inside > KILLS / 4
