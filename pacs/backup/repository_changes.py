"""Repositories added, changed, verified and removed by a person.

add      the place is looked at → identity file → keys, sealed by the sheet → probed → its file in config/ → row
remove   row retired, its copies forgotten → its file in config/ goes. What is in the repository stays there

What says that there is a repository is its file in config/repositories/, which the backup of the configuration holds;
the row of the index follows from it (`register`), so that a rebuilt or restored index knows it as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from pacs.archive.known_volumes import repositories_folder
from pacs.archive.scrub import Scrub
from pacs.archive.volume_places import Given, forget_secrets, kept_secrets, require_own_place, wanted_volume
from pacs.archive.volumes import Volumes
from pacs.backup.key_changes import write_keys
from pacs.backup.keys import KEYRING_SEALED, master_key, sealed_in, unseal
from pacs.backup.pulled import is_pulled, write_authorized
from pacs.backup.repositories import (
    KEEP_FULL,
    ROLE,
    Repository,
    content_of,
    open_volume,
    place_of,
    repositories,
    repository_named,
)
from pacs.errors import ForeignVolume, NotFound, PacsError, UsageError, VolumeError, WrongKey
from pacs.index import volumes as rows
from pacs.index.database import Database
from pacs.index.shipping import may_have
from pacs.index.volumes import REPOSITORY_TIER, Holdings, KnownVolume
from pacs.model.schedule import Window
from pacs.storage import durable
from pacs.storage.keyring import Keyring
from pacs.storage.kinds import Volume
from pacs.storage.probing import Finding, probe
from pacs.storage.sealed import ABOUT_FILE, SealedVolume, read_about
from pacs.storage.trial import require_no_trial
from pacs.storage.volume import appliance_ids, read_identity

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a person says of a repository beside where it is."""

    windows: tuple[str, ...] = ()
    bandwidth_bytes_per_s: int | None = None
    keep_full: int = KEEP_FULL


@dataclass(frozen=True)
class Added:
    """A repository that was added; what was seen of it, and what is to be known about it."""

    repository: Repository
    findings: list[Finding]
    notes: list[str]


class RepositoryChanges:
    """Changes the repositories of one instance."""

    def __init__(self, database: Database, data: Path, volumes: Volumes) -> None:
        self.database, self.data, self.volumes = database, data, volumes
        self.appliance_id = read_identity(data).appliance_id

    def add(self, name: str, place: str, given: Given | None = None, wanted: Wanted | None = None) -> Added:
        """Make a place a repository, or take one of this appliance's up again. Raise UsageError, ForeignVolume,
        WrongKey or VolumeError with the reason why it cannot be one; then nothing was changed there."""
        require_no_trial(self.data)
        given, wanted = given or Given(), wanted or Wanted()
        for words in wanted.windows:
            Window.of(words)
        row, mount = wanted_volume(name, place, REPOSITORY_TIER, given)
        row, shown = _with_host_key(row)
        with rows.adding(self.database) as connection:
            known = rows.list_volumes(self.database, with_retired=True)
            notes = shown + require_own_place(self.data, row, known, mount, given.on_system_disk)
            with kept_secrets(self.data, row, given):
                repository = Repository(
                    name, row.location, row.kind, "", dict(row.options), wanted.windows,
                    wanted.bandwidth_bytes_per_s, wanted.keep_full,
                    credentials=self._file(name).with_suffix(".credentials"),
                )  # fmt: skip
                repository, is_new = self._made(
                    repository, {each.volume_id for each in known if each.state != "retired"}
                )
                try:
                    findings = self._probed(repository, is_new)
                except PacsError:
                    if is_new:  # it is left as it was found, but for what it cannot take back
                        _unmake(repository)
                    raise
                self._keep(repository)
            rows.insert_volume(connection, repository.row)
            rows.take_up(connection, repository.row)
            if not is_new:
                may_have(connection, repository.volume_id)
        if not is_new:
            notes.append("It was a repository of this appliance already: what is in it counts once it was read again.")
        self.volumes.refresh()
        return Added(repository, findings, notes)

    def change(self, name: str, wanted: Callable[[Repository], Repository]) -> Repository:
        """Change when and how fast a repository is written to, what it keeps, and how often it is read. Return it as
        it is now."""
        changed = wanted(repository_named(self.data, name))
        for words in changed.windows:
            Window.of(words)
        _require_renewed(changed)
        self._keep(changed)
        self.register()
        return changed

    def remove(self, name: str) -> Holdings:
        """Give a repository up: nothing more is written to it, and what is in it stays. Return what was there.

        Raise UsageError while an object is nowhere else.
        """
        repository = repository_named(self.data, name)
        self.register()
        with rows.changing(self.database, repository.volume_id) as (connection, now):
            left = rows.holdings(connection, now.volume_id, lock=True)
            if left.only_here:
                raise UsageError(
                    f"{left.only_here} objects have no good copy on the archive's own volumes. They are being copied "
                    f"back; `pacs check` says how far that is. {name} is left as it was."
                )
            rows.forget_copies(connection, now.volume_id)
            rows.give_up(connection, now)
        self._file(name).unlink(missing_ok=True)
        durable.fsync_folder(repositories_folder(self.data))
        forget_secrets(self.data, repository.row)
        write_authorized(self.data)
        self.volumes.refresh()
        return left

    def register(self) -> int:
        """Give each repository its row in the index, where it has none; return how many had none. A row that is there
        follows its file."""
        known = {each.volume_id: each.scrub_days for each in rows.list_volumes(self.database)}
        found = repositories(self.data)
        write_authorized(self.data)
        for each in found:
            if known.get(each.volume_id, each.scrub_days) != each.scrub_days:
                with self.database.transaction() as connection:
                    rows.set_scrub_days(connection, each.volume_id, each.scrub_days)
        missing = [each for each in found if each.volume_id not in known]
        for repository in missing:
            with rows.adding(self.database) as connection:
                rows.insert_volume(connection, repository.row)
                rows.take_up(connection, repository.row)
                may_have(connection, repository.volume_id)
        if missing:
            self.volumes.refresh()
        return len(missing)

    def look_at_keys(self, volume: Volume) -> list[Finding]:
        """Whether the recovery sheet that is valid now opens a repository, and its keys are this appliance's."""
        try:
            is_same = unseal(sealed_in(volume), master_key(self.data)) == Keyring.open(self.data)
        except PacsError as error:
            return [Finding("keys", False, str(error))]
        seen = "the recovery sheet opens it" if is_same else "they are other keys than the appliance's"
        return [Finding("keys", is_same, seen)]

    def look_at_lock(self, repository: Repository, volume: Volume) -> list[Finding]:
        """Whether what is in a repository can be erased with what the appliance has. Raise nothing."""
        retention_days = repository.options.get("retention_days")
        if is_pulled(repository):
            seen = "it is a vault, which keeps what the appliance removes or writes over, as long as is said there"
            return [Finding("erasing", True, seen)]
        lock = None
        inner = volume.inner if isinstance(volume, SealedVolume) else volume
        if repository.kind == "s3":
            from pacs.storage.s3 import S3Volume  # here, as boto3 takes its time

            assert isinstance(inner, S3Volume)
            try:
                lock = inner.lock
            except PacsError as error:
                return [Finding("erasing", False, str(error))]
        if lock is None:
            seen = "whoever has the appliance can erase it: it has no object lock"
            return [Finding("erasing", not retention_days, seen)]
        seen = f"each version is locked for {lock.days} days ({lock.mode})"
        if not retention_days:
            seen += ", and not renewed: add it with --option retention_days=180"
        return [Finding("erasing", True, seen)]

    def read_all(self, volume_id: str, period_days: float) -> Finding:
        """Read every object in a repository and compare its digest. The worker repairs what is bad or missing."""
        work = Scrub(self.database, self.volumes, timedelta(days=period_days))
        found = work.run(everything=True, volume_id=volume_id)
        seen = f"{found.copies} objects read, {found.bad} bad, {found.missing} missing"
        return Finding("objects", found.is_clean, "; ".join([seen, *found.failed]))

    def _probed(self, repository: Repository, is_new: bool) -> list[Finding]:
        opened = open_volume(repository, Keyring.open(self.data), appliance_ids(self.data))
        try:
            findings = [*probe(opened, is_new), *self.look_at_lock(repository, opened)]
        finally:
            opened.close()
        if bad := [each for each in findings if not each.is_well]:
            reasons = "; ".join(f"{each.what}: {each.seen}" for each in bad)
            raise VolumeError(f"{opened.location} does not do what a repository must: {reasons}")
        return findings

    def _made(self, repository: Repository, in_use: set[str]) -> tuple[Repository, bool]:
        """The repository with its id, and whether it is new: it is made if its place is empty."""
        place, keyring = place_of(repository), Keyring.open(self.data)
        found = place.identity()
        is_new = found is None
        if found is None:
            found = place.make(ROLE, self.appliance_id)
        elif found.appliance_id not in appliance_ids(self.data):
            raise ForeignVolume(
                f"{repository.place} is of appliance {found.appliance_id}, this is {self.appliance_id}. Nothing was "
                "touched. Give each appliance a repository of its own; to get back what is in it: `pacs restore`."
            )
        if ROLE not in found.roles:
            raise UsageError(f"{repository.place} is a volume of {', '.join(found.roles)}. Take another place.")
        if found.volume_id in in_use:
            raise UsageError(f"{repository.place} is a repository that is in use. `pacs backup repository list`.")
        repository = replace(repository, volume_id=found.volume_id)
        try:
            opened = place.open(ROLE)
            try:
                self._require_own_keys(opened, keyring)
            finally:
                opened.close()
        except PacsError:
            if is_new:
                _unmake(repository)
            raise
        return repository, is_new

    def _require_own_keys(self, opened: Volume, keyring: Keyring) -> None:
        try:
            about = read_about(opened)
        except NotFound:  # it is new, or a kill came before it was one
            write_keys(self.data, opened)
            return
        if about.ring_id != keyring.ring_id:
            raise WrongKey(
                f"What is at {opened.location} is sealed with other keys than this appliance's. Nothing was touched. "
                "Take an empty place, or restore from it with its recovery sheet."
            )
        write_keys(self.data, opened)  # by the sheet that is valid now

    def _keep(self, repository: Repository) -> None:
        folder = repositories_folder(self.data)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.fsync_folder(folder.parent)
        durable.replace_file(self._file(repository.name), content_of(repository), mode=0o600)

    def _file(self, name: str) -> Path:
        return repositories_folder(self.data) / f"{name}.toml"


def _require_renewed(repository: Repository) -> None:
    """Raise UsageError if locks would end before they are renewed, which reading does (pacs/storage/s3_lock.py)."""
    retention_days = repository.options.get("retention_days")
    if retention_days and repository.scrub_days and repository.scrub_days >= retention_days:
        raise UsageError(
            f"What {repository.name} holds is locked for {retention_days} days from its last reading, so it must be "
            f"read more often than every {repository.scrub_days:g} days. Give fewer."
        )


def _with_host_key(row: KnownVolume) -> tuple[KnownVolume, list[str]]:
    """A place on an SFTP server with its host key, which is known from now on, and what a person should know."""
    if row.kind != "sftp" or "host_key" in row.options:
        return row, []
    from pacs.storage.sftp_client import host_key_of

    key, fingerprint = host_key_of(row.location, row.options)
    note = f"The server shows the host key {key.split()[0]} {fingerprint}. Compare it there, with `ssh-keygen -l`."
    return replace(row, options={**row.options, "host_key": key}), [note]


def _unmake(repository: Repository) -> None:
    place = place_of(repository)
    try:
        opened = place.open(ROLE)
        for path in (ABOUT_FILE, KEYRING_SEALED):
            opened.remove(path)
        opened.close()
        place.unmake()
    except PacsError as error:
        log.warning("what was begun at %s could not be taken back: %s", repository.place, error)
