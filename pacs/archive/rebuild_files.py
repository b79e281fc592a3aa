"""Reading the files of a volume for a rebuild, a piece of a day at a time, in as many processes as there are cores.

Every file proves itself: its name states the SHA-256 of all its bytes, and it is read in full. Where names are
trusted, only what the index needs is read, and the data set's lengths are compared with the file's; its bytes are then
proven by the next scrub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from pacs.errors import CannotUnderstand, DigestMismatch, NotFound, PacsError
from pacs.index import rebuild as rows
from pacs.index.database import Database
from pacs.index.rebuild import LeftOut, ReadFile, Receipt
from pacs.index.store import fields_of
from pacs.model import part10
from pacs.model.attributes import SCANNED_TAGS
from pacs.model.dataset import Scanner
from pacs.model.part10 import FileMeta
from pacs.model.record import IndexRecord, make_record
from pacs.storage.kinds import FileStatus, Volume
from pacs.storage.names import sha256_in_name

_CHUNK_SIZE_BYTES = 1 << 20
#: What is read at once where only headers are wanted.
_START_SIZE_BYTES = 64 << 10


@dataclass(frozen=True)
class Unit:
    """A piece of a day on a volume: so many studies' folders. Its name is the same when a rebuild goes on."""

    volume_id: str
    day: date
    number: int
    folders: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.day}/{self.volume_id}/{self.number}"


@dataclass(frozen=True)
class UnitDone:
    """What reading a unit came to."""

    files: int
    size_bytes: int
    left_out: int


def days_on(volume: Volume) -> list[tuple[date, str]]:
    """The days of arrival that a volume has files of, and the folders of each, in order."""
    found = []
    for tenant in _numbers(volume, "objects"):
        for year in _numbers(volume, tenant):
            for month in _numbers(volume, year):
                for folder in _numbers(volume, month):
                    year_, month_, day_ = map(int, folder.split("/")[-3:])
                    try:
                        found.append((date(year_, month_, day_), folder))
                    except ValueError:
                        continue  # reconciliation finds what is nobody's
    return sorted(found)


def _numbers(volume: Volume, folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in sorted(volume.names(folder)) if name.isascii() and name.isdigit()]


def units_of(volume: Volume, day: date, folders: Sequence[str], folders_max: int = 64) -> Iterator[Unit]:
    """A day on a volume in pieces."""
    studies = [f"{folder}/{name}" for folder in folders for name in sorted(volume.names(folder))]
    for number, first in enumerate(range(0, len(studies), folders_max)):
        yield Unit(volume.volume_id, day, number, tuple(studies[first : first + folders_max]))


def read_unit(database: Database, volume: Volume, unit: Unit, trust_names: bool) -> UnitDone:
    """Read a unit's files into the rebuild's tables, all of it or nothing. Raise VolumeError if the volume goes."""
    statuses = [status for folder in unit.folders for status in volume.walk(folder)]
    digests = {status.path: sha256_in_name(status.path) for status in statuses}
    with database.transaction() as connection:
        receipts = rows.receipts_of(connection, [digest for digest in digests.values() if digest])
    arrivals = [_arrival(status, digests[status.path], receipts, unit.day) for status in statuses]
    files, left_out, seen = [], list[LeftOut](), set[str]()
    for arrived_at, status, receipt in sorted(arrivals, key=lambda each: (each[0], each[1].path)):
        try:
            files.append(read_file(volume, status, arrived_at, receipt, trust_names, seen))
        except (CannotUnderstand, DigestMismatch, NotFound) as error:
            left_out.append(LeftOut(volume.volume_id, status.path, str(error)))
        except PacsError as error:
            volume.require_present()  # else it is no fault of the file's
            left_out.append(LeftOut(volume.volume_id, status.path, str(error)))
    with database.transaction() as connection:
        rows.put_unit(connection, unit.day, unit.name, files, left_out)
    return UnitDone(len(statuses), sum(status.size_bytes for status in statuses), len(left_out))


def _arrival(
    status: FileStatus, sha256: bytes | None, receipts: dict[bytes, Receipt], day: date
) -> tuple[datetime, FileStatus, Receipt | None]:
    """When a file's object came: as its receipt says, else when the file was written, on the day in its path."""
    receipt = receipts.get(sha256) if sha256 else None
    if receipt is not None:
        return receipt.arrived_at, status, receipt
    begins = datetime.combine(day, time(), UTC)
    ends = begins + timedelta(days=1) - timedelta(microseconds=1)
    return min(max(status.modified_at, begins), ends), status, None


def read_file(
    volume: Volume,
    status: FileStatus,
    arrived_at: datetime,
    receipt: Receipt | None,
    trust_names: bool,
    seen: set[str],
) -> ReadFile:
    """What the index needs of a file. Raise CannotUnderstand or DigestMismatch if it is not one that was stored.

    `seen`: what the files before it have said of their series, study and patient; what it says is added.
    """
    sha256 = sha256_in_name(status.path)
    if sha256 is None:
        raise CannotUnderstand("The file does not have the name of an object.")
    character_set = receipt.default_character_set if receipt else ""
    meta, record = read_record(volume, status.path, None if trust_names else sha256, character_set)
    tenant_id = int(status.path.split("/")[1])
    values = record.values
    above = hashlib.sha256(repr((tenant_id, record.above)).encode()).hexdigest()[:32]
    fields = None if above in seen else fields_of(record, meta.transfer_syntax_uid, tenant_id)
    seen.add(above)
    return ReadFile(
        tenant_id=tenant_id,
        volume_id=volume.volume_id,
        path=status.path,
        size_bytes=status.size_bytes,
        modified_at=status.modified_at,
        sha256=sha256,
        arrived_at=arrived_at,
        is_receipted=receipt is not None,
        association_key=receipt.association_key if receipt else None,
        sop_instance_uid=record.sop_instance_uid,
        sop_class_uid=record.sop_class_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        instance_number=_number(values["instance_number"]),
        content_date=str(values["content_date"]),
        content_time=str(values["content_time"]),
        number_of_frames=_number(values["number_of_frames"]),
        above=above,
        fields=fields,
    )


def _number(value: str | int | None) -> int | None:
    return None if value is None else int(value)


def read_record(
    volume: Volume, path: str, sha256: bytes | None, default_character_set: str
) -> tuple[FileMeta, IndexRecord]:
    """A file's meta information and record, with the digest of all its bytes compared.

    sha256 None: only what the index needs is read. Raise CannotUnderstand or DigestMismatch.
    """
    file = volume.open(path)
    try:
        size = file.size_bytes
        chunk_size = _CHUNK_SIZE_BYTES if sha256 is not None else _START_SIZE_BYTES
        buffer = memoryview(bytearray(min(size, chunk_size)))
        at = file.read_into(buffer, 0)
        meta = part10.decode_file_meta(bytes(buffer[: part10.START_BYTES_MAX]))
        scanner, digest = Scanner(meta.transfer_syntax_uid, SCANNED_TAGS), hashlib.sha256(buffer[:at])
        scanner.feed(buffer[meta.dataset_offset : at])
        while at < size:
            unneeded = min(scanner.unneeded_bytes, size - at) if sha256 is None else 0
            if unneeded:
                scanner.skip(unneeded)
                at += unneeded
                continue
            piece = buffer[: min(len(buffer), size - at)]
            if file.read_into(piece, at) < len(piece):
                raise CannotUnderstand("The file became shorter while it was read.")
            digest.update(piece)
            scanner.feed(piece)
            at += len(piece)
    finally:
        file.close()
    if sha256 is not None and digest.digest() != sha256:
        raise DigestMismatch("The file's bytes are not those that were stored.")
    return meta, make_record(scanner.finish(), default_character_set)
