"""Storing an object: the order of steps that makes a success an archive's promise.

    scan → temporary file → fsync → rename → fsync of its folders → one call, one commit → the answer

A file whose row was surely not made is removed at once. Where the outcome is unknown (the database went away in the
middle) the file stays, and reconciliation decides. A duplicate removes its own file only, as no path is used twice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pacs import clock
from pacs.errors import CannotUnderstand, DatabaseUnavailable, PacsError
from pacs.index import store as rows
from pacs.index.database import Connection, Database
from pacs.model import equality, part10
from pacs.model.record import IndexRecord, read_record, require_match, study_key
from pacs.storage.files import ReceivedFile, Volume, object_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """An object as it came: its encoded data set, and what the message that brought it said."""

    dataset: bytes | memoryview
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    association_key: int | None = None


class Store:
    """Takes objects in, on one receiving volume."""

    def __init__(self, database: Database, volumes: dict[str, Volume], receiving: Volume, size_bytes_max: int) -> None:
        self.database = database
        self.volumes = volumes
        self.receiving = receiving
        self.size_bytes_max = size_bytes_max

    def store(self, arrival: Arrival) -> str:
        """Store an object. Return 'stored', 'duplicate', 'same content' or 'conflict': in each case it is safe.

        Raise an error of the tree with the DIMSE status to answer; then nothing of the object is kept, or the
        outcome is unknown and reconciliation will find its file.
        """
        if len(arrival.dataset) > self.size_bytes_max:
            raise CannotUnderstand("The object is larger than this archive takes. See object_size_bytes_max.")
        record = read_record(arrival.dataset, arrival.transfer_syntax_uid)
        require_match(record, arrival.sop_class_uid, arrival.sop_instance_uid)
        path = ""
        try:
            with self.database.transaction() as connection:
                connection.execute("SELECT")  # with no database, nothing is written
                received, path = self._write(record, arrival)
                outcome = self._insert(connection, record, arrival, received, path)
        except DatabaseUnavailable:
            raise  # was it committed? The file stays, and reconciliation decides.
        except Exception:
            if path:
                self.receiving.remove(path)
            raise
        if outcome not in ("stored", "conflict"):
            self.receiving.remove(path)
        return outcome

    def _write(self, record: IndexRecord, arrival: Arrival) -> tuple[ReceivedFile, str]:
        header = part10.encode_file_meta(record.sop_class_uid, record.sop_instance_uid, arrival.transfer_syntax_uid)
        received = self.receiving.receive((header, arrival.dataset), len(header) + len(arrival.dataset))
        path = object_path(rows.DEFAULT_TENANT, clock.now(), study_key(record.study_instance_uid), received.sha256)
        self.receiving.place(received, path)
        return received, path

    def _insert(
        self, connection: Connection, record: IndexRecord, arrival: Arrival, received: ReceivedFile, path: str
    ) -> str:
        file = rows.StoredFile(self.receiving.volume_id, path, received.sha256, received.size_bytes)
        syntax, association = arrival.transfer_syntax_uid, arrival.association_key
        outcome, object_key = rows.store(connection, record, syntax, file, association)
        if outcome != "other":
            return outcome
        if self._is_same_content(connection, object_key, arrival):
            rows.note_same_content(connection, object_key, association)
            return "same content"
        outcome, object_key = rows.store(connection, record, syntax, file, association, keep_beside=True)
        if outcome == "stored":
            log.warning("conflict: one SOP Instance UID, two contents; both are kept", extra={"object": object_key})
            return "conflict"
        return outcome

    def _is_same_content(self, connection: Connection, object_key: int, arrival: Arrival) -> bool:
        for copy in rows.good_copies(connection, object_key):
            if copy["transfer_syntax_uid"] == arrival.transfer_syntax_uid:
                return False  # one encoding and other bytes: other content
            try:
                content = b"".join(self.volumes[copy["volume_id"]].read(copy["path"]))
            except (KeyError, PacsError):
                continue
            offset = part10.decode_file_meta(content[: part10.START_BYTES_MAX]).dataset_offset
            return equality.same_content(
                (content[offset:], copy["transfer_syntax_uid"]),
                (bytes(arrival.dataset), arrival.transfer_syntax_uid),
            )
        return False
