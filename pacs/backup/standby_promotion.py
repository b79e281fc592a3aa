"""A standby becomes the archive, by a person's word.

    settings, keys, journal → the database ends its recovery → a new epoch, on its volumes at once → whose volumes are
    whose → the log is kept for the other node, should it follow → outbound jobs held → services may start

Each step may be done again: a promotion that was killed goes on when the command is given again. The node that was the
archive is fenced as soon as it meets the new epoch: it looks at this node's volumes when it starts and every few
seconds, and this node writes its mark on that one's volumes as soon as it reaches them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pacs import clock
from pacs.archive.lineage import begin_epoch
from pacs.backup.restore import begin_log
from pacs.backup.standby_bundle import BUNDLE, HANDED_OVER, unpack
from pacs.backup.standby_files import OfferedVolume, StandbyFiles, Twin
from pacs.backup.standby_tunnel import answers
from pacs.errors import StandbyError
from pacs.index import lineage as lineage_rows
from pacs.index import restores
from pacs.index import standby as rows
from pacs.index import volumes as volume_rows
from pacs.index.database import Database, Row
from pacs.index.runs import totals
from pacs.index.volumes import STANDBY_TIER, KnownVolume
from pacs.model.lineage import Mark, mark_of, mark_values
from pacs.settings import Settings
from pacs.storage import durable, outbound
from pacs.storage.audit import AuditLog
from pacs.storage.audit_copies import adopt_from_folders
from pacs.storage.lineage import MARK_FILE, encoded, read_mark_at
from pacs.storage.volume import IDENTITY_FILE, read_identity, succeed

log = logging.getLogger(__name__)

_LISTED_MAX = 100_000
#: An archive that lost its power closes no connection: so long it may take until the way to its database ends [s].
_FALLS_SILENT_S = 40.0


@dataclass(frozen=True)
class Promoted:
    """What a promotion did. not_here: studies with objects that are on the other node's volumes only."""

    mark: Mark
    totals: Row
    not_here: list[Row]
    #: Of the bundle what this node keeps its own.
    kept: list[str]


class Promotion:
    """Promotes the standby in a data directory, whose database runs. As the service's user."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self.settings, self.data, self.tell = settings, settings.data, tell
        self.files = StandbyFiles(settings.data)
        known = self.files.twin()
        if known is None or self.files.following() is None:
            raise StandbyError("This node is no standby: there is nothing to promote. `pacs standby status` shows it.")
        if self.files.following() != "follows":
            raise StandbyError("The database has not come over whole yet. Give `pacs standby follow` again.")
        self.twin = known[0]

    def require_possible(self, primary_is_off: bool) -> None:
        """Raise StandbyError while the archive answers: two would take images. Unless a person says that it is off, or
        it was handed over."""
        if primary_is_off or any((Path(v.location) / HANDED_OVER).exists() for v in self._own()):
            return
        found = rows.receiving(self.settings.conninfo)
        if found is None:  # it has ended its recovery: a promotion that was ended itself goes on
            return
        ends_s = clock.monotonic_s() + _FALLS_SILENT_S
        while not answers(self.twin):
            if found is None or not found.is_streaming:
                return
            if clock.monotonic_s() > ends_s:
                break
            self.tell(f"waiting: {self.twin.name} does not answer any more, and its log came a moment ago")
            time.sleep(1)
            found = rows.receiving(self.settings.conninfo)
        raise StandbyError(
            f"{self.twin.name} at {self.twin.host} answers. Hand it over there (`pacs standby hand-over`), or shut "
            "it down for good and give --primary-is-off."
        )

    def run(self) -> Promoted:
        """Do it. Raise StandbyError, DatabaseUnavailable or VolumeError; then give the command again."""
        own = self._own()
        if not own:
            raise StandbyError(
                "None of this node's volumes is known to the archive's index. Has pairing come to its end?"
            )
        kept = self._settings(own)
        self.tell("the database")
        rows.end_recovery(self.settings.conninfo)
        database = Database(self.settings.conninfo)
        try:
            mark = self._epoch(database, own)
            self._swap(database, own)
            rows.make_slot_anew(self.settings.conninfo)
            found = Promoted(mark, totals(database), rows.not_here(database, _LISTED_MAX), kept)
        finally:
            database.close()
        self.files.note_alone(True)
        begin_log(self.data)
        outbound.hold(self.data)
        for volume in own:
            for name in (HANDED_OVER, BUNDLE):  # the one is over, and the other holds keys
                (Path(volume.location) / name).unlink(missing_ok=True)
        self.files.end_following()
        log.warning("this node was promoted: it is the archive from now on, in epoch %d", mark.epoch)
        return found

    def _own(self) -> list[KnownVolume]:
        """This node's volumes, of those that the archive's index has as the standby's, as local ones."""
        appliance_id, found = read_identity(self.data).appliance_id, []
        database = Database(self.settings.conninfo)
        try:
            listed = volume_rows.list_volumes(database)
        finally:
            database.close()
        for row in listed:
            path = Path(unquote(urlsplit(row.location).path)) if row.tier == STANDBY_TIER else Path(row.location)
            if row.kind not in ("sftp", "local") or row.tier == volume_rows.REPOSITORY_TIER:
                continue
            if not (path / IDENTITY_FILE).exists():
                continue
            identity = read_identity(path)
            if (identity.volume_id, identity.appliance_id) == (row.volume_id, appliance_id):
                tier = int(identity.roles[0].removeprefix("tier"))
                found.append(KnownVolume(row.volume_id, "", tier, str(path)))
        return _named(found)

    def _settings(self, own: list[KnownVolume]) -> list[str]:
        self.tell("settings, keys and journal")
        with_bundle = [Path(each.location) for each in own if (Path(each.location) / BUNDLE).exists()]
        if not with_bundle and rows.receiving(self.settings.conninfo) is None:
            return []  # a promotion that was ended goes on: they are here
        if not with_bundle:
            raise StandbyError("The archive's settings and keys have not come yet. They come a minute after pairing.")
        newest = max(with_bundle, key=lambda root: (root / BUNDLE).stat().st_mtime_ns)
        kept = unpack(self.data, newest)
        adopt_from_folders(AuditLog(self.data), [Path(each.location) for each in own])
        succeed(self.data, self.twin.appliance_id)
        return kept

    def _epoch(self, database: Database, own: list[KnownVolume]) -> Mark:
        """Begin an epoch above all that the archive had, and have it on this node's volumes before anything starts."""
        values = lineage_rows.get_mark(database)
        marks = [found for each in own if (found := read_mark_at(Path(each.location))) is not None]
        marks += [mark_of(values)] if values is not None else []
        newest = max(marks, key=lambda mark: mark.epoch, default=None)
        mark = begin_epoch(self.data, newest.lineage_id if newest else None, newest.epoch if newest else 0)
        for each in own:
            durable.replace_file(Path(each.location) / MARK_FILE, encoded(mark))
        lineage_rows.put_mark(database, mark_values(mark))
        return mark

    def _swap(self, database: Database, own: list[KnownVolume]) -> None:
        """This node's volumes are the archive's; what lay on the other node's disks is the standby's from now on, where
        it is, so that a node that follows has it already."""
        ids, listed = {each.volume_id for each in own}, volume_rows.list_volumes(database)
        theirs = [row for row in rows.local_volumes(listed) if row.volume_id not in ids]
        offered = tuple(OfferedVolume(row.volume_id, row.tier, row.location) for row in theirs) or self.twin.volumes
        twin = replace(self.twin, volumes=offered)
        with database.transaction() as connection:
            rows.swap_volumes(connection, own, [twin.row(each) for each in offered])
            restores.forget_what_went_on(connection)
            restores.begin_bulk(connection, str(uuid.uuid4()), twin.name, "promotion", clock.now())
        self.files.note_side(twin, "standby")


def _named(volumes: list[KnownVolume]) -> list[KnownVolume]:
    """The first of each tier has the tier's name, as on an appliance that never was a standby."""
    found, used = [], set[str]()
    for each in volumes:
        name = f"tier{each.tier}"
        name = name if name not in used else f"{name}-{each.volume_id[:8]}"
        used.add(name)
        found.append(replace(each, name=name))
    return found


def twin_of(settings: Settings) -> Twin:
    """The twin of a node. Raise StandbyError if it has none."""
    known = StandbyFiles(settings.data).twin()
    if known is None:
        raise StandbyError("This node has no twin. docs/operate/standby.md says how two are paired.")
    return known[0]
