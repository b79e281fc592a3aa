"""The archive is handed over: it takes nothing more, the standby gets all, and says so there. Then it may be promoted
without a loss. Taken back until then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from pacs import clock
from pacs.archive.volumes import Volumes
from pacs.backup.shipping import Shipper, lag_of
from pacs.backup.standby_bundle import Bundles, note_handed_over, take_back
from pacs.backup.standby_status import at_archive
from pacs.backup.standby_volumes import Standby, first_here, standby_of
from pacs.errors import StandbyError
from pacs.index.database import Database
from pacs.index.locks import AlreadyRunning
from pacs.index.standby import has_log, log_position
from pacs.settings import Settings
from pacs.storage.holding import holding
from pacs.storage.kinds import Volume
from pacs.storage.lineage import LineageFiles, read_mark

#: What the fence of a node says that was handed over.
WHY = "it was handed over to its standby"
#: Whoever looked at the fence before it stood is done after this [s].
_SETTLED_S = 3.0


class HandOver:
    """Hands one archive over to its standby."""

    def __init__(self, settings: Settings, database: Database, volumes: Volumes) -> None:
        self.settings, self.database, self.volumes = settings, database, volumes
        found = standby_of(settings.data)
        if found is None:
            raise StandbyError("This archive has no standby to be handed over to. `pacs standby status` shows it.")
        self.standby: Standby = found
        self._fence = LineageFiles(settings.data)

    def run(self, tell: Callable[[str], None], patience_s: float) -> None:
        """Stop taking objects, and wait until the standby has all. Raise StandbyError if it has not in patience_s: then
        this node takes objects again."""
        self._volume()
        why = self._fence.fenced()
        if why is not None and not why.startswith(WHY):
            raise StandbyError(f"This node is fenced: {why}. `pacs lineage show`.")
        self._fence.fence(WHY, may_be_read=True)
        try:
            tell("nothing more is taken; the standby gets the rest")
            self._wait(patience_s)
            Bundles(self.settings.data).push(self._volume())
        except BaseException:
            self._fence.lift_fence()  # the standby knows nothing of it
            raise
        with self._deciding():
            self._require_not_called_off()
            note_handed_over(self._volume())

    def take_back(self) -> None:
        """It goes on here. Raise StandbyError if the standby was promoted, or if that cannot be told."""
        why, state = self._fence.fenced(), self._fence.state()
        if why is None:
            raise StandbyError("This node was not handed over.")
        volume = self._volume()
        with self._deciding():
            take_back(volume)  # first: what is not there is promoted no more by it
            mark = read_mark(volume)
            if not why.startswith(WHY) or (mark is not None and state is not None and mark.epoch > state.epoch):
                raise StandbyError(
                    f"It cannot be taken back: {self.standby.name} is the archive. `pacs standby follow`."
                )
            self._fence.lift_fence()

    def _deciding(self) -> AbstractContextManager[None]:
        """Only one at a time says at the standby whether it was handed over."""
        busy = StandbyError("Another command hands this archive over, or takes it back, right now. Try again.")
        return holding(self.settings.data / "lineage", busy)

    def _require_not_called_off(self) -> None:
        """Whoever was left waiting, as by a workstation that died, must not hand over what was taken back since."""
        if not (self._fence.fenced() or "").startswith(WHY):
            raise StandbyError("It was taken back by another command while it waited. This node takes objects.")

    def _wait(self, patience_s: float) -> None:
        ends_s, stop = clock.monotonic_s() + patience_s, threading.Event()
        shipper = Shipper(self.database, self.volumes, stop)
        stop.wait(_SETTLED_S)
        try:
            while not self._is_all_there(shipper):
                self._require_not_called_off()
                if clock.monotonic_s() > ends_s:
                    raise StandbyError(
                        f"The standby did not get all in {patience_s:.0f} s ({self._why()}). This node takes objects "
                        "again. Look at the standby, then try again."
                    )
                stop.wait(0.2)
        finally:
            shipper.close()

    def _is_all_there(self, shipper: Shipper) -> bool:
        """Whether the standby has every object, and the log of all that was taken. What is refused goes on writing."""
        with contextlib.suppress(AlreadyRunning):
            shipper.run(self.standby)
        position, patience = log_position(self.database), threading.Event()
        if lag_of(self.database, *self.standby.volume_ids).objects:
            return False
        return any(has_log(self.database, position) or patience.wait(0.1) for _try in range(20))

    def _why(self) -> str:
        found = at_archive(self.settings, self.database, self.standby)
        log = "the log does not stream" if found.log is None or not found.log.is_streaming else (
            f"{found.log.behind_bytes} bytes of the log"
        )  # fmt: skip
        return f"{found.objects.objects} objects, {log} wait. {found.objects.last_error}".strip()

    def _volume(self) -> Volume:
        volume = first_here(self.standby, self.volumes.by_id)
        if volume is None:
            raise StandbyError(f"The standby {self.standby.name} does not answer. Look at it, and at the network.")
        return volume
