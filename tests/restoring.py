"""An archive that is backed up, destroyed and restored, for tests: `pacs dev`, a repository in a folder, the sheet."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pacs.backup import points
from pacs.backup.keys import Keyring, master_key
from pacs.backup.log_spool import LogSpool
from pacs.backup.points import Point
from pacs.backup.repositories import open_volume, repository_named
from tests import peer
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject

NAME = "usb"
#: What wrote to the repository until now is destroyed.
_GONE = "--the-old-one-is-gone"
#: What makes a backed up archive quick enough for a test.
QUICK = {
    "PACS_SETTLE_S": "0", "PACS_RECOVERY_POINT_S": "1", "PACS_TIER_INTERVAL_S": "0.5", "PACS_MOVE_GRACE_S": "0",
}  # fmt: skip


@dataclass
class Archive:
    """A running archive with a repository."""

    dev: Dev
    repository: Path
    sheet: Path

    @classmethod
    def begin(cls, dev: Dev, repository: Path) -> Archive:
        """Start it, and give it the repository."""
        dev.start()
        dev.pacs("backup", "repository", "add", NAME, "--place", str(repository), "--on-system-disk")
        sheet = repository.with_name(f"{repository.name}-sheet.txt")
        sheet.write_text(master_key(dev.data).text + "\n")
        return cls(dev, repository, sheet)

    def send(self, objects: Sequence[RawObject], calling: str = "TESTER") -> None:
        """Send objects; all are taken."""
        assert set(peer.store(self.dev.dicom_port, objects, calling)) == {0x0000}

    def wait_for_point(self, after: Point | None = None) -> Point:
        """Wait for a recovery point that has all that is in the archive now."""
        newest_key = rows(self.dev, "SELECT coalesce(max(object_key), 0) AS newest FROM object")[0]["newest"]

        def look() -> Point | None:
            found = self.newest_point()
            if found is None or found.newest_object_key < newest_key or found == after:
                return None
            return found

        return wait_for(look, f"no recovery point comes: {self.dev.log()[-3000:]}", timeout_s=90)

    def newest_point(self) -> Point | None:
        """The newest point in the repository."""
        keyring = Keyring.open(self.dev.data)
        with closing(open_volume(repository_named(self.dev.data, NAME), keyring)) as volume:
            return points.newest_point(volume, keyring)

    def ship_all_log(self) -> None:
        """End the log's segment, and wait until all of it is in the repository."""
        (ended,) = rows(self.dev, "SELECT pg_walfile_name(pg_switch_wal()) AS name")
        archived = "SELECT 1 AS done FROM pg_stat_archiver WHERE last_archived_wal >= %s"
        wait_for(lambda: rows(self.dev, archived % f"'{ended['name']}'"), "the log is not archived", timeout_s=90)
        spool = LogSpool(self.dev.data)
        wait_for(lambda: not spool.names() or None, "the log is not shipped", timeout_s=90)

    def destroy(self) -> None:
        """The machine is gone, and its disks."""
        self.dev.stop()
        shutil.rmtree(self.dev.data)


@contextmanager
def living_archive(folder: Path, objects: Sequence[RawObject]) -> Iterator[Archive]:
    """An archive below a folder, with a device and these objects, and a recovery point of it."""
    repository = folder / f"repository{uuid.uuid4().hex[:6]}"
    repository.mkdir()
    dev = Dev(folder / f"old{uuid.uuid4().hex[:6]}", {"PACS_RECEIVERS": "1", **QUICK})
    try:
        made = Archive.begin(dev, repository)
        dev.pacs("device", "add", "CT room 2", "--ae-title", "CT2", "--host", "127.0.0.1", "--port", "104")
        # The worker may be at it, since there is a repository.
        wait_for(lambda: dev.pacs("backup", "run", check=False).returncode == 0, "no backup is made", timeout_s=90)
        made.send(objects)
        made.wait_for_point()
        yield made
    finally:
        dev.stop()
        shutil.rmtree(dev.data, ignore_errors=True)
        shutil.rmtree(repository, ignore_errors=True)


@dataclass
class Lost:
    """What is left of an archive: its repository and its sheet."""

    repository: Path
    sheet: Path

    def copy(self, folder: Path) -> Lost:
        """The same again, to be damaged."""
        shutil.copytree(self.repository, folder, symlinks=True)
        return Lost(folder, self.sheet)

    def words(self, *words: str) -> list[str]:
        """The words of `pacs restore` from it."""
        said = () if "--trial" in words else (_GONE,)
        return ["restore", "--repository", str(self.repository), "--sheet", str(self.sheet), "--yes", *said, *words]

    def restore(self, dev: Dev, *words: str) -> str:
        """Restore it onto another instance; return what was printed."""
        done = dev.pacs(*self.words(*words), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, dev: Dev, *words: str) -> tuple[int, str]:
        """Try to restore it; return the exit code and why not."""
        done = dev.pacs(*self.words(*words), check=False)
        assert done.returncode != 0, done.stdout
        return done.returncode, done.stderr


def check_of(dev: Dev, name: str) -> tuple[str, str]:
    """Severity and message of a check of an instance."""
    found = {each["name"]: each for each in json.loads(dev.pacs("check", "--json", check=False).stdout)}
    return found[name]["severity"], found[name]["message"]


def rows(dev: Dev, statement: str) -> list[dict[str, Any]]:
    """What the index of a running instance says."""
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs", row_factory=dict_row) as connection:
        return connection.execute(statement.encode()).fetchall()


def given_back(dev: Dev, objects: Sequence[RawObject]) -> dict[str, bytes]:
    """What a C-GET of the objects' studies gives: SOP Instance UID → data set."""
    studies = dict.fromkeys(peer.study_uid_of(raw) for raw in objects)
    offered = [(raw.sop_class_uid, raw.transfer_syntax_uid) for raw in objects]
    given = {uid: raw.dataset for uid, raw in peer.get(dev.dicom_port, studies, offered).items()}
    assert len(given) == len(objects), dev.log()[-5000:]
    return given


def is_whole_again(dev: Dev) -> bool:
    """Whether all that was restored is back on the archive's own volumes."""
    status = json.loads(dev.pacs("restore", "status", "--json").stdout)
    return status["finished_at"] is not None


#: What of the index is the archive's and no volume's: a restored one must have the same.
_COMPARED = {
    "object": "SELECT sop_instance_uid, sop_class_uid, transfer_syntax_uid, encode(sha256, 'hex') AS sha256,"
    " size_bytes, is_current, arrived_at, calling_ae FROM object LEFT JOIN association USING (association_key)",
    "study": "SELECT s.*, p.patient_id, p.patient_name, p.issuer_of_patient_id FROM study s JOIN patient p"
    " USING (patient_key)",
    "series": "SELECT * FROM series",
    "device": "SELECT * FROM device",
    "rule": "SELECT * FROM tier_rule",
    "pin": "SELECT * FROM study_pin",
    "use": "SELECT * FROM study_use",
    "conflict": "SELECT kind, subject_key, other, resolved_at FROM conflict",
}


def contents(dev: Dev) -> dict[str, list[str]]:
    """All that an archive knows, of a running instance."""
    return {
        name: sorted(json.dumps(row, default=str, sort_keys=True) for row in rows(dev, statement))
        for name, statement in _COMPARED.items()
    }


def settings_and_keys(data: Path) -> dict[str, bytes]:
    """Settings, keys and journal of an instance, without what a restore adds."""
    found = {}
    for folder in ("config", "identity", "journal"):
        for path in (data / folder).rglob("*"):
            name = str(path.relative_to(data))
            if path.is_file() and not re.search(r"former-appliances|restored\.|pgbackrest", name):
                found[name] = path.read_bytes()
    return found
