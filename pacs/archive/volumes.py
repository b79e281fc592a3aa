"""The volumes of an instance: opened, checked against the index and the appliance, watched; where new files go.

One that is missing, or hangs, keeps nothing from starting: its copies are not at hand, `pacs check` says so, and it is
in use again when it is back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from pacs import clock
from pacs.archive.known_volumes import at_root, open_known
from pacs.errors import PacsError, VolumeError, VolumeMissing
from pacs.index import volumes as rows
from pacs.index.database import Database
from pacs.index.volumes import REPOSITORY_TIER, KnownVolume
from pacs.model import placement
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import IncomingFile, ReceivingVolume, Volume
from pacs.storage.volume import read_identity

log = logging.getLogger(__name__)

#: How often a service looks at the volumes and their rows again [s].
REFRESH_S = 3.0
#: How long a volume that is not known is not looked for again [s].
NEW_AGAIN_S = 1.0
#: How long a volume may take to say that it is there [s].
LOOK_S = 10.0
#: How long the choice of the volume that receives stands [s].
CHOSEN_FOR_S = 1.0
#: How long a volume that failed is passed by where there is another [s].
AVOIDED_FOR_S = 30.0
_V = TypeVar("_V", bound=Volume)
#: What Volumes are opened with beside a database, in words that another process can be given.
OpenedWith = tuple[Path, tuple[KnownVolume, ...], int]


class Volumes:
    """The volumes of an instance that are here now. For use by many threads."""

    def __init__(
        self, database: Database, data: Path, at_roots: Sequence[KnownVolume] = (), state_reserve_bytes: int = 0
    ) -> None:
        """`at_roots` are known beside those of the index. state_reserve_bytes: what is the database's where a volume
        shares its file system with the state."""
        self._database, self._data, self._at_roots = database, data, tuple(at_roots)
        self._state_reserve_bytes = state_reserve_bytes
        self._appliance_id = read_identity(data).appliance_id
        self._lock = threading.Lock()
        self._opened: dict[str, tuple[KnownVolume, Volume]] = {}
        self._rows: tuple[KnownVolume, ...] = ()
        self._by_id: dict[str, Volume] = {}
        self._absent: dict[str, PacsError] = {}
        self._looks: dict[str, Future[Volume]] = {}
        self._avoided_until_s: dict[str, float] = {}
        self._last: dict[int, str] = {}
        self._receiving: tuple[ReceivingVolume, float] | None = None
        self._new_again_s = 0.0

    @property
    def opened_with(self) -> OpenedWith:
        """What they were opened with beside the database."""
        return self._data, self._at_roots, self._state_reserve_bytes

    # --- which there are ---------------------------------------------------------------------------------------------

    @property
    def rows(self) -> tuple[KnownVolume, ...]:
        """Every volume that is not retired, here or not, by tier."""
        return self._rows

    @property
    def by_id(self) -> Mapping[str, Volume]:
        """The volumes that are here, by their id."""
        return self._by_id

    @property
    def absent(self) -> Mapping[str, PacsError]:
        """Why a volume is not here, by its id."""
        return self._absent

    def get(self, volume_id: str) -> Volume:
        """A volume. Raise VolumeMissing if it is not here now; DatabaseUnavailable.

        One that was added a moment ago is looked for at once: copies may be on it already, and perhaps no others.
        """
        found = self._by_id.get(volume_id)
        if found is None and self._may_be_new(volume_id):
            self.refresh()
            found = self._by_id.get(volume_id)
        if found is None:
            where = next((row.location for row in self._rows if row.volume_id == volume_id), volume_id)
            reason = self._absent.get(volume_id)
            raise VolumeMissing(str(reason) if reason else f"The volume {where} is not known here.")
        return found

    def _may_be_new(self, volume_id: str) -> bool:
        now_s = clock.monotonic_s()
        if now_s < self._new_again_s or any(row.volume_id == volume_id for row in self._rows):
            return False
        self._new_again_s = now_s + NEW_AGAIN_S
        return True

    def row(self, volume_id: str) -> KnownVolume:
        """What the index knows of a volume. Raise VolumeMissing if it does not know it."""
        for each in self._rows:
            if each.volume_id == volume_id:
                return each
        raise VolumeMissing(f"The index knows no volume {volume_id}. `pacs volume list` shows them.")

    def tier(self, number: int) -> list[Volume]:
        """The volumes of a tier that are in service, and here."""
        return [
            self._by_id[row.volume_id]
            for row in self._rows
            if row.tier == number and row.state == "active" and row.volume_id in self._by_id
        ]

    def draining(self) -> list[Volume]:
        """The volumes that are to be emptied, and are here."""
        return [
            self._by_id[row.volume_id] for row in self._rows if row.state == "draining" and row.volume_id in self._by_id
        ]

    def own(self) -> list[Volume]:
        """The archive's own volumes that are here, by tier: all but the backup repositories."""
        return [
            self._by_id[row.volume_id]
            for row in self._rows
            if row.tier < REPOSITORY_TIER and row.volume_id in self._by_id
        ]

    def all(self) -> list[Volume]:
        """Every volume that is here, by tier."""
        return [self._by_id[row.volume_id] for row in self._rows if row.volume_id in self._by_id]

    # --- where new files go ------------------------------------------------------------------------------------------

    def place(self, tier: int, size_bytes: int) -> Volume:
        """The volume of a tier where new bytes go: the one with the most room, the last one as long as it has about as
        much.

        Raise VolumeFull if none has room for them, VolumeMissing if none is here.
        """
        return self._choose(self.tier(tier), tier, size_bytes)

    def receiving(self, size_bytes: int = 0) -> ReceivingVolume:
        """The volume where an object is received: one of tier 1 that may. Raise VolumeFull or VolumeMissing."""
        chosen = self._receiving
        if chosen is not None and size_bytes == 0 and clock.monotonic_s() < chosen[1]:
            return chosen[0]
        candidates = [cast(ReceivingVolume, each) for each in self.tier(1) if each.promise.may_receive]
        volume = self._choose(candidates, 1, size_bytes)
        self._receiving = (volume, clock.monotonic_s() + CHOSEN_FOR_S)
        return volume

    def begin(self) -> tuple[ReceivingVolume, IncomingFile]:
        """Begin to receive an object: where one volume does not take it, on the next. Raise as `receiving` does."""
        volume, failures = self.receiving(), dict[str, PacsError]()
        while volume.volume_id not in failures:
            try:
                return volume, volume.begin()
            except PacsError as error:
                failures[volume.volume_id] = error
                self.avoid(volume)
                volume = self.receiving()
        raise failures[volume.volume_id]

    def avoid(self, volume: Volume) -> None:
        """Pass a volume by for a while, where there is another: it did not take what it was given."""
        self._avoided_until_s[volume.volume_id] = clock.monotonic_s() + AVOIDED_FOR_S
        self._receiving = None

    def _choose(self, candidates: Sequence[_V], tier: int, size_bytes: int) -> _V:
        if not candidates:
            raise VolumeMissing(self._why_none(tier))
        free_bytes: dict[str, int | None] = {}
        failure: PacsError | None = None
        for volume in candidates:
            try:
                volume.require_room(size_bytes)
                free_bytes[volume.volume_id] = volume.room().free_bytes
            except PacsError as error:
                failure = error
        if failure is not None and not free_bytes:
            raise failure
        now = clock.monotonic_s()
        in_favour = {each: room for each, room in free_bytes.items() if now >= self._avoided_until_s.get(each, 0)}
        chosen = placement.choose(in_favour or free_bytes, self._last.get(tier))
        self._last[tier] = chosen
        return next(volume for volume in candidates if volume.volume_id == chosen)

    def _why_none(self, tier: int) -> str:
        reasons = [str(self._absent[row.volume_id]) for row in self._rows if row.volume_id in self._absent]
        return " ".join(reasons) or f"No volume of tier {tier} is in service. `pacs volume list` shows them."

    # --- watched -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the index's rows and at every volume again: added, drained, retired, gone, back.

        Raise DatabaseUnavailable; then all stays as it was.
        """
        with self._lock:
            also = {row.volume_id for row in self._at_roots}
            indexed = (row for row in rows.list_volumes(self._database) if row.volume_id not in also)
            found = (*self._at_roots, *indexed)
            looks = [(row, self._begin_look(row)) for row in found]
            ends_s = clock.monotonic_s() + LOOK_S
            here: dict[str, Volume] = {}
            absent: dict[str, PacsError] = {}
            for row, look in looks:
                try:
                    here[row.volume_id] = look.result(max(0.0, ends_s - clock.monotonic_s()))
                except TimeoutError:
                    absent[row.volume_id] = VolumeMissing(
                        f"The volume at {row.location} does not answer. Look at its disk, or at its server."
                    )
                except PacsError as error:
                    absent[row.volume_id] = error
                except Exception as error:  # one that nobody foresaw takes no other volume down
                    log.exception("volume %s could not be looked at", row.name)
                    absent[row.volume_id] = VolumeError(f"The volume at {row.location}: {type(error).__name__}.")
            for volume_id in self._opened.keys() - {row.volume_id for row in found}:
                self._opened.pop(volume_id)[1].close()
            self._tell(found, absent)
            self._rows, self._by_id, self._absent = found, here, absent
            self._receiving = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Refresh every few seconds while the block runs, in a thread: for services."""
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop,), name="volumes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(REFRESH_S)  # one that hangs in a look at a volume ends with the process

    def _watch(self, stop: threading.Event) -> None:
        is_told = False
        while not stop.wait(REFRESH_S):
            try:
                self.refresh()
                is_told = False
            except PacsError as error:
                if not is_told:  # once an outage
                    log.warning("the volumes cannot be looked at: %s", error)
                is_told = True
            except Exception:
                log.exception("the volumes could not be looked at")

    def _begin_look(self, row: KnownVolume) -> Future[Volume]:
        """Look at a volume in a thread of its own: one that hangs, as a share may, holds nobody else up."""
        earlier = self._looks.get(row.volume_id)
        if earlier is not None and not earlier.done():
            return earlier
        look: Future[Volume] = Future()

        def run() -> None:
            try:
                look.set_result(self._look_at(row))
            except BaseException as error:
                look.set_exception(error)

        self._looks[row.volume_id] = look
        threading.Thread(target=run, name="volume", daemon=True).start()
        return look

    def _look_at(self, row: KnownVolume) -> Volume:
        before = self._opened.get(row.volume_id)
        if before is not None and (before[0].location, before[0].options) == (row.location, row.options):
            before[1].require_present()
            return before[1]
        opened = open_known(self._data, self._appliance_id, row)
        below = getattr(opened, "inner", opened)  # of a repository, the volume that it is over
        if isinstance(below, LocalVolume) and below.root.stat().st_dev == self._data.stat().st_dev:
            below.kept_bytes = self._state_reserve_bytes
        self._opened[row.volume_id] = (row, opened)
        return opened

    def _tell(self, found: tuple[KnownVolume, ...], absent: Mapping[str, PacsError]) -> None:
        for row in found:
            was_absent, is_absent = row.volume_id in self._absent, row.volume_id in absent
            if is_absent and not was_absent:
                log.error("volume %s is not here: %s", row.name, absent[row.volume_id])
            elif was_absent and not is_absent:
                log.warning("volume %s is back", row.name)


def open_volumes(
    database: Database, data: Path, roots: Mapping[int, Path], in_restore: bool = False, state_reserve_bytes: int = 0
) -> Volumes:
    """The instance's volumes. `roots`: where the settings say that the first volume of a tier is.

    state_reserve_bytes: what is the database's where one shares its file system with the state.
    in_restore: the index may be that of another appliance already; what is at the roots is taken, whatever it says.
    Raise ForeignVolume, VolumeMissing or DataTooNew if what is at the root of a tier without a volume cannot be it.
    """
    appliance_id = read_identity(data).appliance_id
    at_roots = []
    for tier, root in roots.items():
        known = {
            row.volume_id: row.location for row in rows.list_volumes(database, with_retired=True) if row.tier == tier
        }
        found = at_root(tier, root, appliance_id, set(known), in_restore)
        if found is not None and not in_restore:
            if known.get(found.volume_id) != found.location:
                rows.register_volume(database, found)
        elif found is not None:
            at_roots.append(found)
    volumes = Volumes(database, data, at_roots, state_reserve_bytes)
    volumes.refresh()
    return volumes
