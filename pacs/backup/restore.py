"""A restore: from a repository and its recovery sheet to an archive that is searchable and takes new studies.

    marked → configuration, identity, journal → the database's cluster, beside the one that is there → in its place
    → the index's volumes: those that are gone, and the empty ones in their place → the mark is taken away

Each step is done once, however often a restore is killed and run again. Objects are not copied here: every one of them
is served from the repository, as a volume of tier 4, and comes back behind it (pacs/archive/recall.py, Behind).

A trial (pacs/storage/trial.py) is the same beside the archive that goes on: nothing of that one's is written to.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pacs import clock
from pacs.archive.known_volumes import repositories_folder
from pacs.archive.lineage import begin_lineage, continue_lineage
from pacs.backup import mark
from pacs.backup.cluster import restore_cluster
from pacs.backup.configuration import Configuration
from pacs.backup.going_on import may_go_on_in
from pacs.backup.keys import MasterKey, keep_master_key
from pacs.backup.log_spool import LogSpool
from pacs.backup.mark import Begun
from pacs.backup.repositories import Repository, content_of, repositories
from pacs.backup.restore_source import Choice, Source
from pacs.backup.restored_volumes import Survey, survey, take_over
from pacs.errors import PacsError, RestoreError
from pacs.index import database as index
from pacs.index import restores
from pacs.index.database import Database, Row
from pacs.index.runs import totals
from pacs.settings import Settings, load
from pacs.storage import durable
from pacs.storage.audit import AuditLog
from pacs.storage.audit_copies import adopt_from_volumes
from pacs.storage.journal import Journal
from pacs.storage.trial import Trial, begin_trial, end_trial
from pacs.storage.volume import succeed

log = logging.getLogger(__name__)

CONFIGURATION, DATABASE, IN_PLACE, LINEAGE = "configuration", "database", "in place", "lineage"
#: What of the configuration comes back. This appliance keeps its own id: its disks are known by it.
_PARTS = ("config", "identity", "journal")

Tell = Callable[[str], None]


class Server(Protocol):
    """The services and the database of the instance that is restored."""

    @property
    def cluster(self) -> Path:
        """Where the database's cluster is."""
        ...

    @property
    def user(self) -> str | None:
        """Whose the cluster is, if we are root."""
        ...

    def as_service(self) -> AbstractContextManager[None]:
        """Act as the service's user in the block."""
        ...

    def start(self) -> None:
        """Start the database, and nothing else."""
        ...

    def stop(self) -> None:
        """Stop the database."""
        ...


@dataclass(frozen=True)
class Restored:
    """What a restore did. lost: objects that the index knows and that are nowhere."""

    totals: Row
    lost: int
    to_send_again: list[Row]
    heard: list[Row]
    volumes: Survey


class Restore:
    """Restores one repository onto the instance in a data directory."""

    def __init__(
        self,
        data: Path,
        source: Source,
        choice: Choice,
        server: Server,
        tell: Tell,
        master: MasterKey | None = None,
        is_trial: bool = False,
    ) -> None:
        """master: the recovery sheet's; None if the restore was begun before. is_trial: beside the archive."""
        self.is_trial = is_trial
        self.data, self.source, self.choice, self.server, self.tell = data, source, choice, server, tell
        self.master = master

    def run(self) -> Restored:
        """Do what is not done yet. Raise RestoreError, or another error of the tree; then run it again."""
        begun = self._begun()
        for step, do in (
            (CONFIGURATION, self._configuration), (DATABASE, self._database), (IN_PLACE, self._put_in_place),
        ):  # fmt: skip
            if step not in begun.done:
                do()
                begun = self._note(begun, step)
        restored = self._volumes(begun)
        if LINEAGE not in begun.done:
            self._continue_lineage()
            begun = self._note(begun, LINEAGE)
        with self.server.as_service():
            mark.remove(self.data)
        shutil.rmtree(_replaced(self.server.cluster), ignore_errors=True)
        return restored

    def _begun(self) -> Begun:
        """The restore that was begun, if it is the same as this one; else this one, marked."""
        before = mark.begun(self.data)
        with self.server.as_service():
            begun = replace(self.choice.begun(self.source.repository), is_trial=self.is_trial)
            # Kept first: once the mark is there a restore that is run again needs neither the sheet nor any word.
            self.source.keyring.keep(self.data)
            if self.master is not None:
                keep_master_key(self.data, self.master)
            keep_secrets(self.data, self.source.repository)
            if before is None or (before.repository, before.point, before.restored_to, before.is_trial) != (
                begun.repository, begun.point, begun.restored_to, begun.is_trial,
            ):  # fmt: skip
                mark.put(self.data, begun)
            else:
                begun = before
            self._mark_trial()
            keep_repository(self.data, self.source.repository)
        return begun

    def _mark_trial(self) -> None:
        if not self.is_trial:
            end_trial(self.data)
            return
        now, to = clock.now().isoformat(timespec="seconds"), self.choice.restored_to.astimezone(UTC)
        appliance_id, place = self.source.volume.about.appliance_id, self.source.repository.place
        begin_trial(self.data, Trial(appliance_id, place, to.isoformat(timespec="seconds"), now))

    def _note(self, begun: Begun, step: str) -> Begun:
        with self.server.as_service():
            return mark.note_done(self.data, begun, step)

    def _configuration(self) -> None:
        """Settings, keys and journal become those of the archive: root's, as some keys are."""
        self.tell("settings, keys and journal")
        journal = Journal(self.data)
        for segment in journal.segments():  # of what this appliance was until now: it was empty
            segment.unlink()
        snapshot = self.choice.point.configuration if self.choice.point else None
        with tempfile.TemporaryDirectory(prefix="pacs-restore-") as folder:
            configuration = Configuration(self.source.repository, self.source.keyring, Path(folder))
            configuration.restore(self.data, snapshot, _PARTS)
        with self.server.as_service():
            # The audit log goes on from the repository's copy; before anything is written into it again.
            adopt_from_volumes(AuditLog(self.data), [self.source.volume])
            succeed(self.data, self.source.volume.identity.appliance_id)
            keep_repository(self.data, self.source.repository)
            if kept_repository(self.data, self.source.repository).name != self.source.repository.name:
                (repositories_folder(self.data) / f"{self.source.repository.name}.toml").unlink(missing_ok=True)

    def _database(self) -> None:
        self.tell("the database")
        target = _beside(self.server.cluster)
        restore_cluster(
            self.source.repository, self.source.keyring, target,
            point=self.choice.point, time=self.choice.time, delta=may_go_on_in(target), user=self.server.user,
        )  # fmt: skip

    def _put_in_place(self) -> None:
        """Whatever moment it is killed at, one of the two is there and the other is known."""
        cluster, target, replaced = self.server.cluster, _beside(self.server.cluster), _replaced(self.server.cluster)
        self.server.stop()
        if target.exists():
            if cluster.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                cluster.rename(replaced)
            target.rename(cluster)
            durable.fsync_folder(cluster.parent)
        if not cluster.exists():
            raise RestoreError(f"{cluster} is gone. Begin again: `pacs restore --repository ...`.")
        with self.server.as_service():
            begin_log(self.data, not self.is_trial)

    def _volumes(self, begun: Begun) -> Restored:
        self.tell("the volumes")
        settings = load(self.data)
        self.server.start()
        with self.server.as_service():
            database = Database(settings.conninfo)
            try:
                index.migrate(database)
                return self._take_over(settings, database, begun)
            finally:
                database.close()

    def _continue_lineage(self) -> None:
        """From now on this node is the archive: the one that wrote to the repository stops as soon as it looks."""
        with self.server.as_service():
            if self.is_trial:
                begin_lineage(self.data, self.source.volume)
                return
            try:
                continue_lineage(self.data, self.source.volume)
            except PacsError as error:  # it can be read only, say
                self.tell(f"THE OLD NODE IS NOT STOPPED by the repository ({error}) See to it that it stays off")

    def _take_over(self, settings: Settings, database: Database, begun: Begun) -> Restored:
        found = survey(self.data, database, roots_of(settings), self.is_trial)
        repository = kept_repository(self.data, self.source.repository)
        take_over(
            database, Journal(self.data), found, begun.restore_id, repository.row, self.source.volume,
            begun.point or "end of the log", datetime.fromisoformat(begun.restored_to), self.is_trial,
        )  # fmt: skip
        to_send_again = restores.studies_to_send_again(database, LISTED_MAX)
        return Restored(
            totals(database), sum(row["objects"] for row in to_send_again), to_send_again,
            restores.last_heard(database), found,
        )  # fmt: skip


#: So many studies to be sent again are listed.
LISTED_MAX = 100_000


def begin_log(data: Path, is_kept: bool = True) -> None:
    """Keep the log of a cluster that came from elsewhere from its first line: without its history no later restore
    finds to it. is_kept: not that of a trial.

    What is known of the log of the cluster that was here, and what waits of it, is not this one's.
    """
    spool = LogSpool(data)
    spool.want(False)
    for path in spool.state.glob("*.json"):
        path.unlink()
    spool.want(is_kept)


def roots_of(settings: Settings) -> dict[int, Path]:
    """Where the first volumes of the tiers are."""
    roots = {1: settings.tier1_root}
    if settings.tier2_root != settings.tier1_root:
        roots[2] = settings.tier2_root
    return roots


def _beside(cluster: Path) -> Path:
    return cluster.with_name("restoring")


def _replaced(cluster: Path) -> Path:
    return cluster.with_name("replaced")


def keep_repository(data: Path, repository: Repository) -> None:
    """Make a repository that was given for the restore one of the instance's: where it is now, under its old name."""
    kept = keep_secrets(data, repository)
    durable.replace_file(repositories_folder(data) / f"{kept.name}.toml", content_of(kept), mode=0o600)


def keep_secrets(data: Path, repository: Repository) -> Repository:
    """Keep its keys and passwords where the instance looks for them; return it as the instance has it."""
    kept, folder = kept_repository(data, repository), repositories_folder(data)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    given = repository.credentials
    for suffix in (".credentials", ".pem", ".key"):
        source = given.with_suffix(suffix)
        # A certificate is named in the options: it keeps its name.
        target = folder / (source.name if suffix == ".pem" else f"{kept.name}{suffix}")
        if source.is_file() and source != target:
            durable.replace_file(target, source.read_bytes(), mode=0o600)
    return kept


def kept_repository(data: Path, repository: Repository) -> Repository:
    """The same with the name and the terms that the archive has for it; with a name of its own if it has none."""
    known = [each for each in repositories(data) if each.volume_id == repository.volume_id]
    known.sort(key=lambda each: each.name == repository.name)  # the archive's own name first
    kept = replace(
        known[0], place=repository.place, kind=repository.kind, options=repository.options
    ) if known else repository  # fmt: skip
    return replace(kept, credentials=repositories_folder(data) / f"{kept.name}.credentials")
