"""`pacs upgrade`: a signed file into the idle slot, booted once; and the way back.

    checked      signature, versions, room: whatever is wrong is told before anything is touched
    written      the idle slot, read back and compared, while the archive goes on working
    armed        the boot loader boots it once; the record says so
    restarted    machine/settling keeps a copy of the database if it will be changed, machine/trial decides

Killed anywhere before it is armed, nothing has changed but the idle slot; begun again, it goes on.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pacs import clock
from pacs.errors import TryAgainLater, UsageError
from pacs.machine import slot_writing, trial
from pacs.machine.records import read_system
from pacs.machine.settling import size_of
from pacs.machine.slot_writing import Tell
from pacs.machine.slots import GrubEnvironment, Slots
from pacs.machine.upgrade_file import UpgradeFile
from pacs.model.upgrade import Node, System, problems
from pacs.storage.lineage import LineageFiles
from pacs.storage.mounts import mount_of
from pacs.storage.upgrade_record import CALLED_OFF, PASSED, ROLLED_BACK, Record, UpgradeFiles

#: How fast a database is copied on a slow disk; a trial has twice that time more, to copy and to change it.
COPY_BYTES_PER_S = 20e6
_LOCK = Path("/run/pacs-machine/upgrade.lock")


@dataclass(frozen=True)
class Upgrading:
    """What `pacs upgrade` works on. cluster: the database's; memory: what the system disk remembers of the volumes."""

    data: Path
    cluster: Path
    here: System
    slots: Slots
    environment: GrubEnvironment
    memory: Path = Path("/var/lib/pacs/volumes.json")

    @property
    def files(self) -> UpgradeFiles:
        """What is written down about upgrades."""
        return UpgradeFiles(self.data)

    def check(self, file: UpgradeFile, allow_older: bool, again: bool, tell: Tell) -> None:
        """Raise UsageError with everything that is wrong; nothing is touched."""
        self.require_idle()
        self._require_movable()
        status = os.statvfs(self.data)
        node = Node(self.here, self.slots.idle.size_bytes, size_of(self.cluster), status.f_bavail * status.f_frsize)
        if found := problems(file.manifest, node, allow_older, again):
            raise UsageError("\n".join(found) + "\nNothing was touched.")
        done, total = 0, file.manifest.payload_bytes

        def count(block_bytes: int) -> None:
            nonlocal done
            done += block_bytes
            tell("checking the file", done, total)

        file.check_payload(count)

    def apply(self, file: UpgradeFile, limit_s: float, tell: Tell) -> Record:
        """Write the idle slot, and have it booted once. Return the record; the machine is to be restarted then."""
        record_id, slots = str(uuid.uuid4()), self.slots
        limit_s += 2 * size_of(self.cluster) / COPY_BYTES_PER_S
        slot_writing.write(Path(slots.idle.device), file, tell)
        tell("fitting it to this machine", 0, 1)
        slot_writing.fit(slots.idle, trial.encoded(trial.Trial(record_id, limit_s)))
        record = Record(record_id, slots.running.name, slots.idle.name, self.here, file.manifest.system, _now())
        self.files.put_record(record)
        self.environment.write(slot=slots.running.name, **{"try": slots.idle.name})
        return record

    def require_idle(self) -> None:
        """Raise UsageError if an upgrade is under way, or this node may not be touched."""
        record = self.files.record()
        if record is not None and record.is_open:
            words = "waits for a restart" if not record.began_at else "is on trial"
            raise UsageError(
                f"The upgrade to {record.target.version} {words}. See: pacs upgrade status. To call it off: pacs "
                "upgrade back"
            )
        lineage = LineageFiles(self.data)
        if lineage.fenced() is not None:
            raise UsageError("This node is fenced, and another one is the archive. See: pacs lineage show")
        notice = lineage.reverted()
        if notice is not None and not notice.reconciled_at:
            raise UsageError("A disk went back in time, and the worker is putting it right. See: pacs lineage show")

    def _require_movable(self) -> None:
        from pacs.backup.repositories import repositories  # with the index and its libraries: not for `status`

        known = read_system(self.memory)
        if known is not None and known.folders:
            raise UsageError(
                "This appliance runs without volumes, its data are on the system disk: an upgrade would leave them "
                "behind. Attach data disks, and restore a backup onto them (docs/operate/restore.md)."
            )
        folders = [each.folder for each in repositories(self.data) if each.folder is not None]
        left = [folder for folder in folders if mount_of(folder).mount_point == "/"]
        if left:
            raise UsageError(
                f"There is a repository on the system disk, in {left[0]}: an upgrade would leave it behind. Put it on "
                "a disk or share of its own first (docs/operate/backup.md)."
            )

    def back(self, restart: Callable[[], object]) -> str:
        """Call off an upgrade, or go back to the system before it. Return what happens now. Raise UsageError."""
        record = self.files.record()
        if record is None or record.outcome in (ROLLED_BACK, CALLED_OFF):
            raise UsageError("There is no upgrade to go back from. `pacs upgrade status` tells of the last one.")
        if record.is_disk:
            raise UsageError(
                f"The whole system disk was replaced. To go back, attach the system disk of version "
                f"{record.origin.version}: while the copy of the database is kept, it puts that back."
            )
        if record.is_open and not record.began_at:
            self.environment.write(**{"try": ""})
            record.outcome, record.ended_at, record.why = CALLED_OFF, _now(), "a person called it off"
            self.files.put_record(record)
            return f"Called off: version {record.origin.version} goes on. Nothing was changed."
        self._require_way_back(record)
        record.outcome, record.back_at, record.why = "", _now(), "a person asked for it"
        self.files.put_record(record)
        self.environment.write(slot=record.from_slot, **{"try": ""})
        restart()
        return f"Going back to version {record.origin.version}: the machine restarts now."

    def _require_way_back(self, record: Record) -> None:
        if self.slots.running.name != record.to_slot:
            raise UsageError("This system is not the one that was upgraded to. See: pacs upgrade status")
        kept = self.files.kept()
        if record.target.schema != record.origin.schema and (kept is None or kept.record_id != record.record_id):
            raise UsageError(
                f"The copy of the database from before the upgrade is gone (it is kept for a week), and version "
                f"{record.origin.version} cannot read what {record.target.version} made of it. Restore a backup from "
                "before it onto that version (docs/operate/restore.md)."
            )


def retry(files: UpgradeFiles) -> str:
    """Have a replaced system disk tried once more that did not pass. Raise UsageError."""
    record = files.record()
    if record is None or not record.is_disk or record.outcome != ROLLED_BACK:
        raise UsageError("No replaced system disk has failed. See: pacs upgrade status")
    record.outcome = CALLED_OFF
    files.put_record(record)
    return "It is tried once more at the next start. Restart the machine."


@contextmanager
def alone(lock: Path = _LOCK) -> Iterator[None]:
    """One at a time. Raise TryAgainLater."""
    lock.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryAgainLater("`pacs upgrade` is at work already. See: pacs upgrade status") from None
        yield


def describe(record: Record | None, here: System, slots: Slots | None, files: UpgradeFiles) -> list[str]:
    """Where things stand, in lines for a person."""
    where = f", from slot {slots.running.name}" if slots else ""
    lines = [f"version {here.version} runs{where} (schema {here.schema}, PostgreSQL {here.postgresql})"]
    if record is None:
        return [*lines, "no upgrade yet"]
    lines.append(f"last upgrade: {record.origin.version} -> {record.target.version}, prepared {record.armed_at}")
    if not record.is_open:
        lines.append(f"  {record.outcome} {record.ended_at}{f': {record.why}' if record.why else ''}")
    else:
        lines.append(f"  {record.stage}")
    kept = files.kept()
    if kept is not None:
        lines.append(f"  the database of {kept.at} is kept for the way back, for a week: {files.cluster}")
    if record.outcome == PASSED and not record.is_disk:
        lines.append("  back to it: pacs upgrade back")
    return lines


def _now() -> str:
    return clock.now().isoformat(timespec="seconds")
