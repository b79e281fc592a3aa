"""The drill: a restore that is done every night, and compared with the living archive.

    newest point of a repository → its database into a kept scratch cluster (only what changed is copied) → its
    configuration into a scratch folder → a receiver of its own, on this machine only → C-FIND and C-GET of a sample,
    from the repository → digests compared with the living archive's → some of it brought back onto a scratch volume,
    as a restore does, and reconciled

The living archive is only read, and of its database only. In the restored one every volume but the repository is
nowhere, so that nothing can be given that is not in the repository. A drill that cannot run is one that failed.
"""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pacs import clock
from pacs.archive.batches import Item
from pacs.archive.batches import Source as CopySource
from pacs.archive.commit import Verifier
from pacs.archive.reconcile import reconcile
from pacs.archive.retrieve import Retrieve
from pacs.archive.room import StateRoom
from pacs.archive.store import Store
from pacs.archive.transfer import Transfer
from pacs.archive.volumes import Volumes
from pacs.backup import points
from pacs.backup.cluster import restore_cluster
from pacs.backup.configuration import Configuration
from pacs.backup.going_on import may_go_on_in
from pacs.backup.keys import Keyring
from pacs.backup.points import Point
from pacs.backup.repositories import open_volume, repositories, repository_named
from pacs.backup.restore_room import needed
from pacs.backup.restore_source import Choice, Source
from pacs.backup.restored_volumes import note_shipped
from pacs.backup.scratch_server import end_server, scratch_server
from pacs.errors import BackupError, PacsError, RestoreError
from pacs.index import database as index
from pacs.index import drills
from pacs.index.database import Database, Row
from pacs.index.runs import newest_success, record_run
from pacs.index.store import DEFAULT_TENANT
from pacs.index.volumes import KnownVolume, list_volumes, register_volume
from pacs.model.drill_outcome import DrillOutcome
from pacs.model.drill_sample import Share, next_share
from pacs.model.record import study_key
from pacs.model.sizes import format_size
from pacs.net.fetching import Asked, fetch
from pacs.net.receiver import Receiver
from pacs.settings import Settings, load
from pacs.storage.journal import Journal
from pacs.storage.names import object_path
from pacs.storage.volume import create_identity, read_identity

log = logging.getLogger(__name__)

#: Below the data directory: the cluster is kept from night to night, the rest is not.
FOLDER = Path("drill")
#: Beside the share of the month, so many of the newest objects; and so many bytes are brought back onto a volume.
NEWEST_MAX = 50
BROUGHT_BACK_OBJECTS, BROUGHT_BACK_BYTES = 64, 256 << 20
#: Larger objects are read from the repository and not asked for by C-GET, which keeps them in memory [bytes].
GET_SIZE_BYTES_MAX = 256 << 20
#: Of what went wrong so much is told.
_TOLD_MAX = 20
_AT_ONCE = 1000
_ASKED = ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid")


class Drill:
    """One drill of an instance. Not two at once: the caller sees to that."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        keyring: Keyring,
        user: str | None = None,
        repository: str | None = None,
    ) -> None:
        """user: whom the scratch server runs as, if we are root. repository: which; else that of the newest point."""
        self.settings, self.database, self.keyring, self.user = settings, database, keyring, user
        self.folder = settings.data / FOLDER
        self.cluster, self.instance, self.tier1 = (self.folder / name for name in ("cluster", "instance", "tier1"))
        self._wanted = repository
        self.outcome = DrillOutcome()

    def run(self) -> DrillOutcome:
        """Do it, and note what came of it: also that it could not be done, and then raise why."""
        started = clock.now()
        try:
            self._run()
        except (PacsError, OSError) as error:
            self.outcome.error = str(error)
            raise error if isinstance(error, PacsError) else RestoreError(f"The drill failed: {error}.") from error
        except Exception as error:
            self.outcome.error = f"The drill itself failed: {type(error).__name__}."
            raise
        finally:
            self._clear()
            record_run(self.database, "drill", started, self.outcome.is_proven, asdict(self.outcome))
        return self.outcome

    def _run(self) -> None:
        source, point = self._newest_point()
        try:
            self.outcome.repository, self.outcome.point = source.repository.name, point.name
            self.outcome.point_at = point.at.isoformat()
            self._clear()
            self._require_room(source, point)
            began_s = clock.monotonic_s()
            self._restore(source, point)
            with scratch_server(self.cluster, self.folder / "run", self.user) as conninfo:
                restored = Database(conninfo)
                try:
                    index.migrate(restored)
                    self._prove(source, point, restored, began_s)
                finally:
                    restored.close()
        finally:
            source.volume.close()

    def _newest_point(self) -> tuple[Source, Point]:
        """The newest recovery point of all repositories that are here. Raise BackupError or NotFound."""
        data = self.settings.data
        known = [repository_named(data, self._wanted)] if self._wanted else repositories(data)
        found: list[tuple[Source, Point]] = []
        reasons = []
        for each in known:
            try:
                volume = open_volume(each, self.keyring)
            except PacsError as error:
                reasons.append(str(error))
                continue
            newest = points.newest_point(volume, self.keyring)
            if newest is None:
                volume.close()
                reasons.append(f"Repository {each.name} has no recovery point yet.")
            else:
                found.append((Source(each, volume, self.keyring), newest))
        if not found:
            raise BackupError(" ".join(reasons) or "There is no backup repository. `pacs backup repository add`.")
        found.sort(key=lambda pair: pair[1].position)
        for source, _point in found[:-1]:
            source.volume.close()
        return found[-1]

    def _require_room(self, source: Source, point: Point) -> None:
        """Raise RestoreError if the scratch cluster would take room that the living database may need."""
        self.folder.mkdir(mode=0o755 if self.user else 0o700, exist_ok=True)
        need = needed(source, Choice(point.at, point=point)).state_bytes
        need -= sum(file.stat().st_size for file in self.cluster.rglob("*") if file.is_file())
        free = shutil.disk_usage(self.folder).free - (self.settings.state_reserve_bytes or 0)
        if free < need:
            raise RestoreError(
                f"There is no room for a drill: {format_size(need)} more are needed on the disk of {self.folder}, and "
                f"{format_size(max(0, free))} are free. Enlarge it: `pacs capacity plan` reckons with it."
            )

    def _restore(self, source: Source, point: Point) -> None:
        end_server(self.cluster, self.user)
        restore_cluster(
            source.repository, self.keyring, self.cluster, point=point, user=self.user,
            delta=may_go_on_in(self.cluster),
        )  # fmt: skip
        self.instance.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pacs-drill-") as folder:
            configuration = Configuration(source.repository, self.keyring, Path(folder))
            configuration.restore(self.instance, point.configuration)
        for ours in Journal(self.instance).segments():
            living = self.settings.data / "journal" / ours.name
            if not living.is_file() or not living.read_bytes().startswith(ours.read_bytes()):
                self._problem(f"Segment {ours.name} of the journal is not the beginning of the living one.")
        self.keyring.keep(self.instance)

    def _prove(self, source: Source, point: Point, restored: Database, began_s: float) -> None:
        with restored.transaction() as connection:
            drills.make_harmless(connection, source.repository.row, self.folder / "nowhere")
        others = [row.volume_id for row in list_volumes(restored) if row.volume_id != source.volume.volume_id]
        note_shipped(restored, source.repository.row, source.volume, others)
        scratch = self._scratch_volume()
        register_volume(restored, scratch)
        volumes = Volumes(restored, self.instance)
        volumes.refresh()
        self._compare_indexes(restored, point)
        self.outcome.searchable_s = clock.monotonic_s() - began_s
        rows, share = self._sample(restored, source, point)
        self._compare_objects(rows, restored, volumes)
        self._bring_back(rows, restored, volumes, scratch.volume_id)
        self.outcome.share_begin, self.outcome.share_end = f"{share.begin:x}", f"{share.end:x}"
        self.outcome.share_part = share.part

    def _scratch_volume(self) -> KnownVolume:
        shutil.rmtree(self.tier1, ignore_errors=True)
        self.tier1.mkdir(mode=0o700)
        made = create_identity(self.tier1, ("tier1",), read_identity(self.instance).appliance_id)
        return KnownVolume(made.volume_id, "drill", 1, str(self.tier1))

    def _compare_indexes(self, restored: Database, point: Point) -> None:
        """What the restored index knows, and whether it lacks what the living one had when the point was made."""
        there = drills.known(restored, point.newest_object_key)
        here = drills.known(self.database, point.newest_object_key)
        self.outcome.known = there["objects"]
        if there["through"] < here["through"]:
            self._problem(f"The restored index lacks {here['through'] - there['through']} objects of its point.")

    def _sample(self, restored: Database, source: Source, point: Point) -> tuple[list[Row], Share]:
        """Tonight's share of all objects, and the newest; the share first."""
        before = newest_success(self.database, "drill")
        ended = int(before["result"].get("share_end") or "0", 16) if before else 0
        share = next_share(ended, before["finished_at"] if before else None, clock.now(), self.settings.drill_nights)
        volume_id = source.volume.volume_id
        rows, is_whole = drills.sample(restored, volume_id, share.ranges(), self.settings.drill_size_bytes_max or None)
        sampled = {row["object_key"] for row in rows}
        newest = drills.newest(restored, volume_id, point.newest_object_key, NEWEST_MAX)
        if not is_whole:
            share = share.until(bytes(rows[-1]["sha256"]))
        rows += [row for row in newest if row["object_key"] not in sampled]
        drills.leave_only(restored, volume_id, [row["object_key"] for row in rows])
        return rows, share

    def _compare_objects(self, rows: Sequence[Row], restored: Database, volumes: Volumes) -> None:
        settings = load(
            self.instance, database=restored.conninfo, tier1=self.tier1, tier2=self.tier1,
            any_device_from_loopback=True, user_identity="optional",
        )  # fmt: skip
        store = Store(restored, volumes, settings.object_size_bytes_max, StateRoom(self.folder, 0))
        receiver = Receiver(settings, restored, store, Retrieve(restored, volumes), Verifier(restored, volumes))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            receiver.serve([listening], [])
            try:
                for at in range(0, len(rows), _AT_ONCE):
                    self._compare(rows[at : at + _AT_ONCE], listening.getsockname()[1], settings.ae_title, volumes)
            finally:
                receiver.stop(patience_s=5)

    def _compare(self, rows: Sequence[Row], port: int, ae_title: str, volumes: Volumes) -> None:
        """Ask for objects, and compare what comes with what the living archive says that it is."""
        asked = [row for row in rows if row["is_current"] and row["size_bytes"] <= GET_SIZE_BYTES_MAX]
        given = fetch(port, ae_title, [Asked(*(row[name] for name in _ASKED)) for row in asked])
        living = drills.living_digests(self.database, {row["sop_instance_uid"] for row in rows})
        by_get = {row["object_key"] for row in asked}
        for row in rows:
            uid, sha256 = row["sop_instance_uid"], bytes(row["sha256"])
            self.outcome.sampled += 1
            self.outcome.sampled_bytes += row["size_bytes"]
            wrong = ""
            if uid in living and sha256 not in living[uid]:
                wrong = "the living archive has other bytes under its UID"
            elif row["copy_key"] is None:
                wrong = "it is not in the repository"
            elif row["object_key"] not in by_get:
                wrong = _read_again(row, volumes)
            elif uid not in given.digests:
                wrong = "a C-GET did not give it"
            elif given.digests[uid] != sha256:  # or its file has another start than ours have
                wrong = _read_again(row, volumes)
            if not wrong and row["is_patients"] and row["object_key"] in by_get:
                wrong = "" if row["study_instance_uid"] in given.found else "a C-FIND did not find its study"
            if wrong:
                self.outcome.differ += 1
                self._problem(f"Object {uid} of study {row['study_instance_uid']}: {wrong}.")

    def _bring_back(self, rows: Sequence[Row], restored: Database, volumes: Volumes, volume_id: str) -> None:
        """Some of them onto a volume, as a restore does it, and the volume reconciled with the index."""
        items: list[Item] = []
        size_bytes = 0
        for row in (each for each in rows if each["copy_key"] is not None):
            size_bytes += row["size_bytes"]
            if len(items) >= BROUGHT_BACK_OBJECTS or size_bytes > BROUGHT_BACK_BYTES:
                break
            sha256 = bytes(row["sha256"])
            like = object_path(DEFAULT_TENANT, clock.now(), study_key(row["study_instance_uid"]), sha256)
            source = CopySource(row["copy_key"], row["volume_id"], row["path"])
            items.append(Item(row["object_key"], sha256, row["size_bytes"], (source,), like=like))
        transfer, target = Transfer(restored, volumes), volumes.get(volume_id)
        try:
            done = transfer.copy(items, lambda _size_bytes: target)
        finally:
            transfer.close()
        for error in list(done.failed.values())[:1]:
            self._problem(f"{len(done.failed)} objects could not be brought back: {error}")
        found = reconcile(restored, [target], 0)
        if not found.is_clean or found.files != len(done.copied) or found.copies != len(done.copied):
            self._problem(f"Reconciliation of what was brought back found {asdict(found)}.")
        self.outcome.brought_back = len(done.copied)

    def _problem(self, words: str) -> None:
        log.error("drill: %s", words)
        if len(self.outcome.problems) < _TOLD_MAX:
            self.outcome.problems.append(words)

    def _clear(self) -> None:
        """Remove what is not kept: keys and images above all."""
        for folder in (self.instance, self.tier1, self.folder / "run"):
            shutil.rmtree(folder, ignore_errors=True)


def _read_again(row: Row, volumes: Volumes) -> str:
    """Why an object is not in the repository as it should be; empty if it is."""
    try:
        digest = volumes.get(row["volume_id"]).digest_on_disk(row["path"])
    except PacsError as error:
        return str(error)
    return "" if digest == bytes(row["sha256"]) else "its bytes in the repository are not those that were stored"
