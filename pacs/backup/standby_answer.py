"""Success answers that wait for the standby: an object is acknowledged when it, and what the index knows of it, is at
the standby too. Off unless a setting says so; then nothing here is called.

    stored here, as ever → copied to the standby, read back, its row committed → the log up to there on its disk

Where the standby does not have it in time, the setting says what happens: the device is told to send again later, or
the object is acknowledged, and `pacs check` says that it was without the standby. A node that was promoted has none
before the other one follows: until then it acknowledges by itself, and `pacs check` says that, too.
"""

from __future__ import annotations

import logging
import threading
from itertools import groupby
from pathlib import Path

from pacs import clock
from pacs.archive.transfer import Transfer
from pacs.archive.volumes import Volumes
from pacs.backup.shipping import largest_with_room, plain_item
from pacs.backup.standby_files import StandbyFiles
from pacs.backup.standby_volumes import Standby, standby_of
from pacs.errors import PacsError, TryAgainLater
from pacs.index import shipping as rows
from pacs.index import standby as standby_rows
from pacs.index.database import Database
from pacs.settings import Settings
from pacs.storage import durable

log = logging.getLogger(__name__)

#: How often it is asked whether the log has come [s].
_LOOK_S = 0.005
#: How long after a failure the standby is taken for away, so that not each object waits for its whole time [s].
_AWAY_S = 10.0
#: After a promotion: how often it is looked whether the other node follows [s].
_ALONE_S = 2.0
#: In the folder of sockets: since when answers were given without the standby.
_DEGRADED = "standby-answers-degraded"


class StandbyAnswer:
    """Confirms objects, for the threads of one receiver."""

    def __init__(self, settings: Settings, database: Database, volumes: Volumes) -> None:
        self.settings, self.database, self.volumes = settings, database, volumes
        self._mark = settings.runtime_folder / _DEGRADED
        self._files = StandbyFiles(settings.data)
        self._away_until_s = self._alone_until_s = 0.0
        self._local = threading.local()

    def __call__(self, sop_instance_uid: str) -> None:
        """Return when the standby has the objects with this UID. Raise TryAgainLater where it must, and has not."""
        if self._is_alone():
            return
        try:
            self._try(sop_instance_uid)
        except PacsError as error:
            if self.settings.standby_answer == "wait-or-refuse":
                raise TryAgainLater(f"The standby does not have the object: {error}") from error
            self._note_degraded(error)
        else:
            self._note_whole()

    def _is_alone(self) -> bool:
        """Whether the other node has not followed since this one was promoted."""
        if clock.monotonic_s() < self._alone_until_s:
            return True
        if not self._files.is_alone():
            return False
        log_way = standby_rows.stream(self.settings.conninfo)
        if log_way is not None and log_way.is_streaming:
            self._files.note_alone(False)
            log.warning("the standby follows: objects wait for it from now on")
            return False
        self._alone_until_s = clock.monotonic_s() + _ALONE_S
        return True

    def _try(self, sop_instance_uid: str) -> None:
        if clock.monotonic_s() < self._away_until_s:
            raise TryAgainLater("it did not answer a moment ago.")
        try:
            self._confirm(sop_instance_uid)
        except PacsError:
            self._away_until_s = clock.monotonic_s() + _AWAY_S
            raise

    def _confirm(self, sop_instance_uid: str) -> None:
        limit_s = self.settings.standby_answer_s
        standby, ends_s = standby_of(self.settings.data), clock.monotonic_s() + limit_s
        if standby is None:
            raise TryAgainLater("there is none. `pacs standby pair`, or set standby_answer to off.")
        self._ship(standby, sop_instance_uid)
        position = standby_rows.log_position(self.database)
        wait = threading.Event()
        while not standby_rows.has_log(self.database, position):
            if clock.monotonic_s() > ends_s:
                raise TryAgainLater(f"its database did not follow in {limit_s:g} s.")
            wait.wait(_LOOK_S)

    def _ship(self, standby: Standby, sop_instance_uid: str) -> None:
        lacking = rows.unshipped_of(self.database, standby.volume_ids, sop_instance_uid)
        if not lacking:
            return
        here = [self.volumes.by_id[each] for each in standby.volume_ids if each in self.volumes.by_id]
        if not here:
            raise TryAgainLater("its volumes are away.")
        items = [plain_item(list(copies)) for _key, copies in groupby(lacking, key=lambda row: int(row["object_key"]))]
        done = self._transfer().copy(items, lambda size_bytes: largest_with_room(here, size_bytes))
        if done.failed:
            raise next(iter(done.failed.values()))

    def _transfer(self) -> Transfer:
        """A thread's own."""
        found: Transfer | None = getattr(self._local, "transfer", None)
        if found is None:
            found = self._local.transfer = Transfer(self.database, self.volumes)
        return found

    def _note_degraded(self, error: PacsError) -> None:
        if not self._mark.exists():
            log.error("objects are acknowledged without the standby: %s", error)
            durable.replace_file(self._mark, f"{clock.now():%Y-%m-%d %H:%M:%S} UTC\n".encode())

    def _note_whole(self) -> None:
        if self._mark.exists():
            log.warning("the standby confirms objects again")
            self._mark.unlink(missing_ok=True)


def degraded_since(runtime: Path) -> str:
    """Since when answers are given without the standby; empty if none is."""
    try:
        return (runtime / _DEGRADED).read_text("utf-8").strip()
    except FileNotFoundError:
        return ""
