"""A cluster of its own with a repository, to be backed up, lost and brought back."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pacs.archive.volume_places import Given
from pacs.backup import cluster_backup
from pacs.backup.cluster import RestoredCluster, restore_cluster
from pacs.backup.log_shipping import ShippedLog, Shipper, tidy
from pacs.backup.log_spool import LogSpool
from pacs.backup.repositories import Repository, repositories
from pacs.backup.repository_changes import RepositoryChanges
from pacs.cli.cluster import Cluster
from pacs.cli.dev import unprivileged_user
from pacs.cli.instance import open_instance
from pacs.index import database as index
from pacs.storage.keyring import Keyring
from pacs.storage.volume import create_identity
from tests.faults.process import wait_for

ROOM_BYTES = 1 << 30


@dataclass
class Site:
    """An instance's data directory with a running cluster and no services: the test does what the worker would."""

    folder: Path

    def __post_init__(self) -> None:
        self.data = self.folder / "data"
        (self.data / "config").mkdir(parents=True)
        (self.data / "journal").mkdir()
        create_identity(self.data, ("state",))
        self.cluster = Cluster(self.data, unprivileged_user(self.data))
        self.cluster.start()
        self.conninfo = f"host={self.cluster.sockets} dbname=pacs user=pacs"
        self.database = index.Database(self.conninfo)
        index.migrate(self.database)
        self.spool = LogSpool(self.data)
        self.keyring = Keyring.open(self.data)
        self.execute("CREATE TABLE note (words text)")

    def add_folder(self, name: str) -> Repository:
        """A repository in a new folder."""
        place = self.folder / name
        place.mkdir(mode=0o755)
        return self.add(name, str(place))

    def add(self, name: str, place: str, **given: Any) -> Repository:
        """A repository of any kind."""
        with open_instance(self.data) as instance:
            changes = RepositoryChanges(instance.database, self.data, instance.volumes)
            made = changes.add(name, place, Given(on_system_disk=True, **given)).repository
        self.spool.want(True)
        return made

    def repository(self, name: str) -> Repository:
        return next(each for each in repositories(self.data) if each.name == name)

    def forget(self, name: str) -> None:
        """Take a repository away from the instance."""
        with open_instance(self.data) as instance:
            RepositoryChanges(instance.database, self.data, instance.volumes).remove(name)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement.encode())

    def note(self, words: str) -> str:
        """Write a row; return the server's time right after."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute("INSERT INTO note VALUES (%s)", (words,))
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        return str(row[0])

    def end_segment(self) -> str:
        """Have PostgreSQL end its segment of the log; return its name, once it is in the spool."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute("INSERT INTO note VALUES ('next segment')")
            row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
        assert row is not None
        self.wait(lambda: self.archived() >= row[0])
        return str(row[0])

    def archived(self) -> str:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            row = connection.execute("SELECT last_archived_wal FROM pg_stat_archiver").fetchone()
        return (row and row[0]) or ""

    def wait(self, condition: Callable[[], object]) -> None:
        wait_for(condition, "it did not come about")

    def ship(self, name: str) -> int:
        return Shipper(self.data, name).run()

    def tidy(self, room_bytes: int = ROOM_BYTES) -> list[str]:
        gaps = tidy(self.data, [each.name for each in repositories(self.data)], room_bytes)
        self.spool.limit(ROOM_BYTES)  # or PostgreSQL would drop its log itself, in so little room
        return gaps

    def log(self, name: str) -> ShippedLog:
        return ShippedLog(self.spool, name)

    def labels(self, name: str) -> list[str]:
        return [each.label for each in cluster_backup.backups(self.data, name)]

    def restore(self, name: str, **words: object) -> Restored:
        """Bring the cluster back from a repository, into another data directory."""
        target = self.folder / f"restored-{uuid.uuid4().hex[:6]}" / "postgresql" / "main"
        target.parent.mkdir(parents=True)
        for folder in (target.parent, target.parent.parent, self.folder):
            folder.chmod(0o755)
        user = unprivileged_user(self.folder)
        made = restore_cluster(self.repository(name), self.keyring, target, user=user, **words)  # type: ignore[arg-type]
        return Restored(made, target.parent.parent)

    def stop(self) -> None:
        self.database.close()
        self.cluster.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Restored:
    """A restored cluster, stopped."""

    made: RestoredCluster
    data: Path

    def notes(self) -> list[str]:
        """Start it as it would be in service; what its rows say."""
        running = Cluster(self.data, unprivileged_user(self.data))
        running.start()
        try:
            with psycopg.connect(f"host={running.sockets} dbname=pacs user=pacs") as connection:
                rows = connection.execute("SELECT words FROM note WHERE words <> 'next segment' ORDER BY words")
                return [row[0] for row in rows.fetchall()]
        finally:
            running.stop()


@pytest.fixture(scope="module")
def site(short_folder: Path) -> Iterator[Site]:
    """A site that a module's tests share."""
    made = Site(_folder(short_folder))
    yield made
    made.stop()


def _folder(short_folder: Path) -> Path:
    folder = short_folder / f"site{uuid.uuid4().hex[:6]}"
    folder.mkdir(mode=0o755)
    return folder
