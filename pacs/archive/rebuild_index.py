"""A rebuild from beginning to end: nobody else at work, the right journal, every volume, the new index in its place.

The index that is there is closed to everybody when the rebuild begins, so that nothing arrives, moves or is decided
meanwhile: what the services would do in it would be lost with it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pacs.archive import rebuild_mark as mark
from pacs.archive.rebuild import Outcome, Rebuild, Tell
from pacs.archive.rebuild_mark import Begun
from pacs.archive.rebuild_processes import reading
from pacs.archive.rebuild_sources import bring_up_to_date, open_sources, require_identity, roots_of, told_without
from pacs.errors import DatabaseUnavailable, DataTooNew, RebuildError, UsageError
from pacs.index import database as index
from pacs.index import volumes as volume_rows
from pacs.index.database import Database
from pacs.index.databases import Databases, contents
from pacs.index.runs import newest_run
from pacs.index.volumes import REPOSITORY_TIER, KnownVolume
from pacs.settings import Settings
from pacs.storage.receipts import Receipts
from pacs.storage.volume import read_identity

log = logging.getLogger(__name__)


def rebuild_index(
    settings: Settings, told: Begun, may_replace: bool, journal: Path | None, processes: int, tell: Tell
) -> tuple[Outcome, str]:
    """Rebuild an instance's index, or go on with it; return what it came to, and what the old index is called now.

    Raise RebuildError or UsageError if it must not be begun; VolumeError, DataTooNew; then nothing was touched.
    """
    data, databases = settings.data, Databases(settings.conninfo)
    read_identity(data)
    with mark.alone(data):
        found = mark.begun(data)
        if found is None:
            _require_nobody(databases)
            known = _look_at_old(settings, databases, told, may_replace)
            databases.drop(databases.new_name)  # of one that was never begun
            _make_new(settings, databases, [row for row in known if told_without(told, row.name, row.volume_id)], told)
            begun = told
        else:
            begun = _same(found, told)
            done = _swapped(settings, databases, begun)
            if done is not None:
                mark.remove(data)
                return done, ""
        if not databases.exists(databases.new_name):
            _make_new(settings, databases, [], begun)
        databases.end_others(databases.new_name)
        with _opened(databases.new_conninfo) as database:
            outcome = _outcome_of(database, begun)
            if outcome is None:
                outcome = _rebuild(settings, databases, database, begun, journal, processes, tell)
        return outcome, _put_in_place(settings, databases)


def abandon(settings: Settings) -> None:
    """Give a rebuild up that was begun: the index that was there is opened again. Raise RebuildError if one runs."""
    databases = Databases(settings.conninfo)
    with mark.alone(settings.data):
        if not databases.exists(databases.name):
            raise RebuildError("There is no other index than the one that is being made. Go on with the rebuild.")
        databases.drop(databases.new_name)
        databases.admit(databases.name, True)
        mark.remove(settings.data)


# --- before -----------------------------------------------------------------------------------------------------------


def _require_nobody(databases: Databases) -> None:
    users = databases.users(databases.name)
    if users:
        raise RebuildError(
            f"The index is in use ({', '.join(users)}). Stop the services first: "
            "`systemctl stop 'pacs-dicom*.socket' 'pacs-receiver@*' pacs-worker pacs-web 'pacs-*.timer'`."
        )


def _look_at_old(settings: Settings, databases: Databases, told: Begun, may_replace: bool) -> tuple[KnownVolume, ...]:
    """The volumes that the index knows. Raise UsageError if it holds objects and its replacement was not asked for,
    VolumeMissing if one of them is not here."""
    if not databases.exists(databases.name):
        return ()
    try:
        old = contents(settings.conninfo)
    except DatabaseUnavailable as error:
        log.warning("the index that is there cannot be read: %s", error)
        return ()
    if old.has_objects and not may_replace:
        raise UsageError(
            "The index that is there holds objects. --replace makes a new one beside it, puts that in its place and "
            "keeps the old one under another name. Nothing was touched."
        )
    for row in old.volumes:
        if row.kind == "local" and row.tier < REPOSITORY_TIER and not told_without(told, row.name, row.volume_id):
            require_identity(Path(row.location), row.name)
    return old.volumes


def _make_new(settings: Settings, databases: Databases, without: Sequence[KnownVolume], told: Begun) -> None:
    """Make the new database. It knows the volumes that are left out, so that nothing takes their place unnoticed."""
    databases.make_new()
    known = {row.name: row for row in without}
    for tier, root in roots_of(settings).items():
        name = f"tier{tier}"
        if name in told.without and name not in known:  # its id is known to nobody
            known[name] = KnownVolume(str(uuid.uuid4()), name, tier, str(root))
    with _opened(databases.new_conninfo) as database:
        index.migrate(database)
        for row in known.values():
            volume_rows.register_volume(database, row)


def _same(found: Begun, told: Begun) -> Begun:
    if (told.trust_names, told.without) not in ((False, ()), (found.trust_names, found.without)):
        raise UsageError("The rebuild that was begun was told something else. Give it up first: --abandon.")
    return found


# --- the rebuild ------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(conninfo: str) -> Iterator[Database]:
    database = Database(conninfo)
    try:
        with database.transaction() as connection:
            index.schema_version(connection)  # of a newer version it is refused
        yield database
    finally:
        database.close()


def _rebuild(
    settings: Settings,
    databases: Databases,
    database: Database,
    begun: Begun,
    journal: Path | None,
    processes: int,
    tell: Tell,
) -> Outcome:
    data = settings.data
    volumes, segments, journalled = open_sources(settings, database, begun, journal)
    mark.put(data, begun)
    databases.admit(databases.name, False)
    bring_up_to_date(data, segments)
    outcome = Outcome(begun.rebuild, trusted_names=begun.trust_names, without_volumes=list(begun.without))
    with reading(processes, database, volumes, begun.trust_names) as readers:
        made = Rebuild(database, volumes, journalled, Receipts(data), readers, processes)
        return made.run(outcome, tell)


# --- after ------------------------------------------------------------------------------------------------------------


def _outcome_of(database: Database, begun: Begun) -> Outcome | None:
    """What this rebuild came to in a database where it is finished; None if it is not."""
    with database.transaction() as connection:
        if index.schema_version(connection) == 0:
            return None
    run = newest_run(database, "rebuild")
    if run is None or run["result"].get("rebuild") != begun.rebuild:
        return None
    return Outcome(**run["result"])


def _swapped(settings: Settings, databases: Databases, begun: Begun) -> Outcome | None:
    """What a rebuild came to that was ended after it had put its index in place; None if it had not."""
    if databases.exists(databases.new_name) or not databases.exists(databases.name):
        return None
    databases.admit(databases.name, True)
    with _opened(settings.conninfo) as database:
        found = _outcome_of(database, begun)
    if found is None:
        databases.admit(databases.name, False)
    return found


def _put_in_place(settings: Settings, databases: Databases) -> str:
    kept = databases.swap()
    mark.remove(settings.data)
    if kept and _is_empty(databases, kept):
        databases.drop(kept)
        return ""
    return kept


def _is_empty(databases: Databases, name: str) -> bool:
    try:
        return not contents(databases.conninfo_of(name)).has_objects
    except (DatabaseUnavailable, DataTooNew):
        return False
