"""Before PostgreSQL starts: whether this system may use the data that are here, and where an upgrade stands.

    the data are an earlier version's: a copy of the stopped cluster is kept, then the selftest decides (machine/trial)
    an upgrade was given up, or the new system was never heard of: the kept cluster is put back, if there is one
    the data are a later version's: nothing is touched, and the image to use is named

That the index went back in time then is told to the lineage: the log goes on on a new timeline, and what was stored
since is found again from its files (archive/reverted). Killed at any moment, the next start goes on.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path

from pacs import __version__, clock
from pacs.errors import DataTooNew, UsageError, VolumeFull
from pacs.machine.commands import run
from pacs.machine.identity import POSTGRESQL_VERSION
from pacs.model import upgrade
from pacs.model.lineage import Finding
from pacs.model.upgrade import System
from pacs.storage import durable
from pacs.storage.lineage import LineageFiles
from pacs.storage.looking_back import act_on
from pacs.storage.upgrade_record import CALLED_OFF, PASSED, ROLLED_BACK, Kept, Record, UpgradeFiles

log = logging.getLogger(__name__)

KEPT_FOR = timedelta(days=7)


@dataclass(frozen=True)
class Boot:
    """How this machine was booted. slot: the one that runs; default, once: as GRUB has them; empty if not known."""

    slot: str = ""
    default: str = ""
    once: str = ""
    #: Of which upgrade the system in this slot is.
    record_id: str = ""


def this_system(version: str = __version__) -> System:
    """What runs here."""
    names = [entry.name for entry in resources.files("pacs.index").joinpath("migrations").iterdir()]
    return System(version, max(int(name[:4]) for name in names if name.endswith(".sql")), POSTGRESQL_VERSION)


class Settling:
    """Settles the upgrades of one instance. cluster: the database's, which does not run."""

    def __init__(self, data: Path, cluster: Path, here: System, boot: Boot) -> None:
        self.data, self.cluster, self.here, self.boot = data, cluster, here, boot
        self.files = UpgradeFiles(data)

    def settle(self) -> bool:
        """Return whether this system is on trial. Raise DataTooNew, UsageError, VolumeFull if it may not start."""
        record = self.files.record()
        if record is not None and record.is_open:
            if self._has_passed(record):  # the power went before it was noted, or before a way back was prepared
                self.files.accept(self.here)
                self._close(record, PASSED)
            elif self._is_target(record) and not record.back_at:
                return self._go_on(record)
            else:
                self._end(record)
        return self._begin()

    # --- an upgrade that has no end yet -------------------------------------------------------------------------------

    def _is_target(self, record: Record) -> bool:
        if record.is_disk:
            return self.here == record.target
        return self.boot.slot == record.to_slot and self.boot.record_id == record.record_id

    def _has_passed(self, record: Record) -> bool:
        return not record.is_disk and self._is_target(record) and self.boot.default == record.to_slot

    def _go_on(self, record: Record) -> bool:
        if self.here.schema > record.origin.schema:
            self._keep(record)
        if not record.began_at:
            record.began_at = _now()
            self.files.put_record(record)
        log.warning("version %s is on trial: the selftest decides", self.here.version)
        return True

    def _end(self, record: Record) -> None:
        if not record.began_at and not record.back_at and self.boot.once == record.to_slot:
            self._close(record, CALLED_OFF, "the boot loader did not start it")
        elif not record.began_at and not record.back_at:
            self._close(record, ROLLED_BACK, "the new system did not come as far as its volumes")
        else:
            self._put_back(record)
            self.files.accept(record.origin)
            why = record.why or "the new system was not heard of again: it hung, or its power was cut"
            self._close(record, ROLLED_BACK, why)

    def _close(self, record: Record, outcome: str, why: str = "") -> None:
        record.outcome, record.ended_at, record.why = outcome, _now(), why or record.why
        self.files.put_record(record)
        log.warning("the upgrade to %s: %s %s", record.target.version, outcome, record.why)

    # --- no upgrade, or none that this system knows of ----------------------------------------------------------------

    def _begin(self) -> bool:
        data, record = self.files.accepted(), self.files.record()
        if data is None:
            self.files.accept(self.here)
            return False
        if refused := upgrade.problem_of_data(data, self.here):
            raise DataTooNew(refused)
        if self.here.schema == data.schema:
            self.files.accept(self.here)
            return False
        if (
            record is not None
            and record.outcome == ROLLED_BACK
            and record.target == self.here
            and record.origin == data
        ):
            raise UsageError(
                f"Version {self.here.version} did not pass ({record.why}), and the data were put back as version "
                f"{data.version} had them. Attach the system disk of version {data.version}, or of a later one than "
                f"{self.here.version}. To try this one once more: sudo pacs upgrade retry"
            )
        record = Record(str(uuid.uuid4()), "", "", data, self.here, _now())
        self._require_room()
        self.files.put_record(record)
        return self._go_on(record)

    # --- the cluster's copy -------------------------------------------------------------------------------------------

    def _require_room(self) -> None:
        free, size = shutil.disk_usage(self.data).free, size_of(self.cluster)
        kept = size_of(self.files.cluster) + size_of(self.files.failed) + size_of(self.files.unfinished)
        if free + kept < upgrade.needed_bytes(size):
            raise VolumeFull(
                f"Version {self.here.version} changes the database, and keeps a copy of it before: {size / 1e9:.1f} GB "
                f"on the state's disk, which has {free / 1e9:.1f} GB free. Nothing was touched. Enlarge that disk, or "
                "attach the system disk that was there before."
            )

    def _keep(self, record: Record) -> None:
        kept = self.files.kept()
        if kept is not None and kept.record_id == record.record_id:
            return
        self._require_room()
        forget(self.files)
        if not self.cluster.exists():
            return
        log.warning("copying the database before it is changed: %.1f GB", size_of(self.cluster) / 1e9)
        run("cp", "-a", "--reflink=auto", str(self.cluster), str(self.files.unfinished))
        with durable.open_folder(self.files.folder) as fd:
            durable.sync_file_system(fd)
        self.files.unfinished.rename(self.files.cluster)
        durable.fsync_folder(self.files.folder)
        self.files.put_kept(Kept(record.record_id, record.origin, _now()))

    def _put_back(self, record: Record) -> None:
        kept = self.files.kept()
        if kept is None or kept.record_id != record.record_id or not self.files.cluster.exists():
            return  # the schema is the same, and the database as the new system left it is good
        log.warning("the upgrade is rolled back: the database of %s is put back", kept.at)
        record.back_at = record.back_at or _now()
        self.files.put_record(record)
        # The notice before the deed: what was stored since must be found again whatever happens now.
        notice = f"the database was put back to {kept.at}, before the upgrade to {record.target.version}"
        lineage = LineageFiles(self.data)
        if lineage.state() is not None:
            act_on(lineage, [Finding("behind the state", "the database", notice)])
        if self.cluster.exists():
            shutil.rmtree(self.files.failed, ignore_errors=True)
            self._move(self.cluster, self.files.failed)
        self._move(self.files.cluster, self.cluster)
        self.files.put_kept(None)

    def _move(self, source: Path, target: Path) -> None:
        source.rename(target)
        for folder in (target.parent, source.parent):
            durable.fsync_folder(folder)


def forget(files: UpgradeFiles) -> None:
    """Remove the copies that upgrades have kept."""
    files.put_kept(None)
    for folder in (files.cluster, files.failed, files.unfinished):
        shutil.rmtree(folder, ignore_errors=True)


def forget_old(files: UpgradeFiles, now: datetime) -> bool:
    """Remove the copies when they are a week old and their upgrade has ended. Return whether they were."""
    record = files.record()
    if record is None or record.is_open or now - datetime.fromisoformat(record.ended_at) < KEPT_FOR:
        return False
    if not (files.cluster.exists() or files.failed.exists()):
        return False
    forget(files)
    return True


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder; 0 if it is not there."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.lstat().st_size
        except OSError:
            continue
    return found


def _now() -> str:
    return clock.now().isoformat(timespec="seconds")
