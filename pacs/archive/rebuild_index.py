"""A rebuild from beginning to end: nobody else at work, the right journal, every volume, the new index in its place.

The index that is there is closed to everybody when the rebuild begins, so that nothing arrives, moves or is decided
meanwhile: what the services would do in it would be lost with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.archive import rebuild_mark as mark
from pacs.archive import replay
from pacs.archive.rebuild import Outcome, Rebuild, Tell
from pacs.archive.rebuild_mark import Begun
from pacs.archive.rebuild_processes import reading
from pacs.archive.replay import Journalled
from pacs.archive.volumes import Volumes, open_volumes
from pacs.errors import DatabaseUnavailable, DataTooNew, RebuildError, UsageError, VolumeMissing
from pacs.index import database as index
from pacs.index.database import Database
from pacs.index.databases import Databases, contents
from pacs.index.runs import newest_run
from pacs.settings import Settings
from pacs.storage import durable
from pacs.storage.journal import Journal, copy_on, lines_of, reconciled
from pacs.storage.receipts import Receipts
from pacs.storage.volume import IDENTITY_FILE, read_identity

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
            _look_at_old(settings, databases, told, may_replace)
            databases.drop(databases.new_name)  # of one that was never begun
            begun = told
        else:
            begun = _same(found, told)
            done = _swapped(settings, databases, begun)
            if done is not None:
                mark.remove(data)
                return done, ""
        databases.make_new()
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


def _look_at_old(settings: Settings, databases: Databases, told: Begun, may_replace: bool) -> None:
    """Refuse to replace an index that holds objects unless that was said, and to leave a volume out that it knows."""
    if not databases.exists(databases.name):
        return
    try:
        old = contents(settings.conninfo)
    except DatabaseUnavailable as error:
        log.warning("the index that is there cannot be read: %s", error)
        return
    if old.has_objects and not may_replace:
        raise UsageError(
            "The index that is there holds objects. --replace makes a new one beside it, puts that in its place and "
            "keeps the old one under another name. Nothing was touched."
        )
    for row in old.volumes:
        if row.kind == "local" and not told_without(told, row.name, row.volume_id):
            _require_identity(Path(row.location), row.name)


def told_without(told: Begun, name: str, volume_id: str) -> bool:
    """Whether a rebuild was told to go on without a volume."""
    return name in told.without or volume_id in told.without


def _require_identity(root: Path, name: str) -> None:
    if not (root / IDENTITY_FILE).exists():
        raise VolumeMissing(
            f"Volume {name} is not at {root}. Attach and mount its disk; or go on without what it holds: "
            f"`pacs index rebuild --without {name}`."
        )


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
    index.migrate(database)
    volumes = _volumes(settings, database, begun)
    segments, journalled = _journal(data, volumes, journal)
    mark.put(data, begun)
    databases.admit(databases.name, False)
    _bring_up_to_date(data, segments)
    outcome = Outcome(begun.rebuild, trusted_names=begun.trust_names, without_volumes=list(begun.without))
    conninfo = databases.new_conninfo
    with reading(processes, conninfo, data, database, volumes, begun.trust_names) as readers:
        made = Rebuild(database, volumes, journalled, Receipts(data), readers, processes)
        return made.run(outcome, tell)


def _volumes(settings: Settings, database: Database, begun: Begun) -> Volumes:
    """The volumes that the settings and the journal name, every one of them here but for those that were given up."""
    roots = {1: settings.tier1_root}
    if settings.tier2_root != settings.tier1_root:
        roots[2] = settings.tier2_root
    for tier, root in list(roots.items()):
        if told_without(begun, f"tier{tier}", ""):
            del roots[tier]
        else:
            _require_identity(root, f"tier{tier}")
    volumes = open_volumes(database, settings.data, roots)
    for row in volumes.rows:
        if row.volume_id in volumes.absent and not told_without(begun, row.name, row.volume_id):
            raise VolumeMissing(
                f"Volume {row.name} is not here: {volumes.absent[row.volume_id]} Or go on without what it holds: "
                f"`pacs index rebuild --without {row.name}`."
            )
    return volumes


def _journal(data: Path, volumes: Volumes, right: Path | None) -> tuple[dict[str, bytes], Journalled]:
    """The journal: ours and every volume's copy, each segment where it is longest."""
    if right is not None:
        ours = {path.name: path.read_bytes() for path in sorted(right.glob("*.jsonl"))}
        if not ours:
            raise UsageError(f"There is no segment of a journal in {right}. Name the folder that has them.")
        copies = {str(right): ours}
    else:
        copies = {"the data directory": {path.name: path.read_bytes() for path in Journal(data).segments()}}
        copies.update({volume.location: copy_on(volume) for volume in volumes.all()})
    segments, words = reconciled(copies)
    for each in words:
        log.warning("%s The longest copy of each counts.", each)
    return segments, replay.read(line for content in segments.values() for line in lines_of(content))


def _bring_up_to_date(data: Path, segments: dict[str, bytes]) -> None:
    """The journal goes on from the one that the index was made from."""
    folder = Journal(data).folder
    try:
        durable.make_folders(folder)
        for name, content in segments.items():
            path = folder / name
            if not path.exists() or path.read_bytes() != content:
                durable.replace_file(path, content)
    except OSError as error:
        raise durable.as_volume_error(error, folder) from error


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
