"""Storing an object: the order of steps that makes a success an archive's promise.

    pieces → scanned, and into a temporary file → fsync → rename → fsync of its folders → commit → answer

The row is inserted by one call. Where the object before was of the same series, the database begins on it while the
file is fsynced; it is committed after that in any case.

A file whose row was surely not made is removed at once. Where the outcome is unknown (the database went away in the
middle) the file stays, and reconciliation decides. A duplicate removes its own file only, as no path is used twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pacs import clock
from pacs.archive.room import StateRoom
from pacs.archive.volumes import Volumes
from pacs.errors import CannotUnderstand, PacsError, VolumeFailed, VolumeFull
from pacs.index import store as rows
from pacs.index.database import Connection, Database
from pacs.index.insertion import Insertion
from pacs.model import equality, part10
from pacs.model.attributes import SCANNED_TAGS
from pacs.model.dataset import Scanner
from pacs.model.record import IndexRecord, make_record, require_match, study_key
from pacs.model.uids import is_uid
from pacs.storage.lineage import LineageFiles
from pacs.storage.names import object_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """An object that is whole in memory, and what the message that brought it said."""

    dataset: bytes | memoryview
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    association_key: int | None = None


@dataclass(frozen=True)
class Announced:
    """What the message that brings an object says of it, before its data set comes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    association_key: int | None = None
    #: The Specific Character Set of an object that says none (its device's); for the index only.
    default_character_set: str = ""


class StoreSession:
    """What the objects that one association brings have in common: often the series.

    The memory of the last object's series is only trusted for objects that say the same of patient, study and series.
    """

    def __init__(self) -> None:
        self._above: tuple[object, ...] = ()
        self._object_key = 0
        self._series_key: int | None = None

    def note(self, record: IndexRecord, object_key: int) -> None:
        """Remember an object that was stored."""
        if record.above != self._above:
            self._above, self._object_key, self._series_key = record.above, object_key, None

    def series_key(self, connection: Connection, record: IndexRecord) -> int | None:
        """The series of an object that says the same as the last one of all that stands above it; else None."""
        if record.above != self._above:
            return None
        if self._series_key is None:
            self._series_key = rows.series_of(connection, self._object_key)
        return self._series_key


class Store:
    """Takes objects in, each on the volume that receives at the moment."""

    def __init__(self, database: Database, volumes: Volumes, size_bytes_max: int, room: StateRoom) -> None:
        self.database, self.room = database, room
        self.fence = LineageFiles(room.root)
        self.volumes = volumes
        self.size_bytes_max = size_bytes_max
        #: Comparing two objects takes a multiple of their size in memory: one at a time.
        self.comparing = threading.Lock()
        #: Called with the SOP Instance UID of an object that is safe here, before it is acknowledged; raises if it may
        #: not be. None: nothing else is waited for.
        self.confirm: Callable[[str], None] | None = None

    def store(self, arrival: Arrival) -> str:
        """Store an object that is whole in memory; see Arriving.finish."""
        announced = Announced(
            arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid, arrival.association_key
        )
        arriving = self.begin(announced, StoreSession())
        arriving.write(memoryview(arrival.dataset))
        return arriving.finish()

    def path_of(self, record: IndexRecord, sha256: bytes) -> str:
        """A new path for an object that arrives now."""
        return object_path(rows.DEFAULT_TENANT, clock.now(), study_key(record.study_instance_uid), sha256)

    def begin(self, announced: Announced, session: StoreSession) -> Arriving:
        """Begin to take an object in. Raises nothing: what is wrong is told by `finish`."""
        return Arriving(self, announced, session)


class Arriving:
    """An object on its way in. Pieces are written, then `finish` says what became of it, or `abandon` forgets it."""

    def __init__(self, store: Store, announced: Announced, session: StoreSession) -> None:
        self.store, self.announced, self.session = store, announced, session
        self._error: PacsError | None = None
        self._size_bytes = 0
        try:
            if not (is_uid(announced.sop_class_uid) and is_uid(announced.sop_instance_uid)):
                raise CannotUnderstand("The message's SOP Class UID or SOP Instance UID is not a UID.")
            store.room.require()
            store.fence.require_not_fenced()
            self._receiving, self._incoming = store.volumes.begin()
            self._scanner = Scanner(announced.transfer_syntax_uid, SCANNED_TAGS)
            header = part10.encode_file_meta(
                announced.sop_class_uid, announced.sop_instance_uid, announced.transfer_syntax_uid
            )
            self._header_size_bytes = len(header)
            self._incoming.write(header)
        except PacsError as error:
            self._fail(error)

    def write(self, piece: memoryview) -> None:
        """Take the next bytes of the data set. After an error the rest is let pass by."""
        if self._error is not None:
            return
        self._size_bytes += len(piece)
        try:
            if self._size_bytes > self.store.size_bytes_max:
                raise CannotUnderstand("The object is larger than this archive takes. See object_size_bytes_max.")
            self._scanner.feed(piece)
            self._incoming.write(piece)
        except (VolumeFull, VolumeFailed) as error:  # the next object goes elsewhere, where there is another volume
            self.store.volumes.avoid(self._receiving)
            self._fail(error)
        except PacsError as error:
            self._fail(error)

    def abandon(self) -> None:
        """Forget the object: nothing is left of it."""
        if self._error is None:
            self._fail(CannotUnderstand("The object was cut off on its way."))

    def finish(self) -> str:
        """Return 'stored', 'duplicate', 'same content' or 'conflict': in each case the object is safe.

        Raise an error of the tree with the DIMSE status to answer; then nothing of the object is kept, or the
        outcome is unknown and reconciliation will find its file.
        """
        if self._error is not None:
            raise self._error
        self._incoming.begin_writeback()
        try:
            record = make_record(self._scanner.finish(), self.announced.default_character_set)
            require_match(record, self.announced.sop_class_uid, self.announced.sop_instance_uid)
            self.store.fence.require_not_fenced()  # it may have been long on its way
            with self.store.database.lent_connection() as connection:  # with no database, nothing gets a name
                outcome = self._place_and_insert(connection, record)
        except BaseException:
            self._incoming.abandon()
            raise
        if self.store.confirm is not None:  # its connection was given back: this may take a while
            self.store.confirm(record.sop_instance_uid)
        return outcome

    def _fail(self, error: PacsError) -> None:
        self._error = error
        if hasattr(self, "_incoming"):
            self._incoming.abandon()

    def _place_and_insert(self, connection: Connection, record: IndexRecord) -> str:
        receiving, sha256 = self._receiving, self._incoming.sha256
        path = self.store.path_of(record, sha256)
        file = rows.StoredFile(receiving.volume_id, path, sha256, self._incoming.size_bytes)
        insertion = self._begin_insertion(connection, record, file)
        try:
            receiving.place(self._incoming.finish(), path)
        except BaseException as error:
            if insertion is not None:
                insertion.abandon()
            if isinstance(error, VolumeFull | VolumeFailed):
                self.store.volumes.avoid(receiving)
            raise
        try:
            inserted = insertion.commit() if insertion is not None else None
            outcome = "stored" if inserted is not None else self._insert(connection, record, file)
        except Exception:
            # A broken connection leaves open whether it was committed: the file stays, and reconciliation decides.
            if not (connection.closed or connection.broken):
                receiving.remove(path)
            raise
        if outcome not in ("stored", "conflict"):
            receiving.remove(path)
        return outcome

    def _begin_insertion(self, connection: Connection, record: IndexRecord, file: rows.StoredFile) -> Insertion | None:
        series_key = self.session.series_key(connection, record)
        if series_key is None:
            return None
        syntax, association = self.announced.transfer_syntax_uid, self.announced.association_key
        return Insertion(connection, series_key, record, syntax, file, association)

    def _insert(self, connection: Connection, record: IndexRecord, file: rows.StoredFile) -> str:
        syntax, association = self.announced.transfer_syntax_uid, self.announced.association_key
        outcome, object_key = rows.store(connection, record, syntax, file, association)
        if outcome == "stored":
            self.session.note(record, object_key)
        if outcome != "other":
            return outcome
        with self.store.comparing:
            is_same_content = self._is_same_content(connection, object_key, file)
        if is_same_content:
            rows.note_same_content(connection, object_key, association)
            return "same content"
        outcome, object_key = rows.store(connection, record, syntax, file, association, keep_beside=True)
        if outcome == "stored":
            log.warning("conflict: one SOP Instance UID, two contents; both are kept", extra={"object": object_key})
            return "conflict"
        return outcome

    def _is_same_content(self, connection: Connection, object_key: int, file: rows.StoredFile) -> bool:
        """Whether the object that is here and the one that came hold the same, in two encodings."""
        if file.size_bytes > equality.SIZE_BYTES_MAX:
            return False
        for copy in rows.good_copies(connection, object_key):
            if copy["transfer_syntax_uid"] == self.announced.transfer_syntax_uid:
                return False  # one encoding and other bytes: other content
            try:
                volume = self.store.volumes.get(copy["volume_id"])
                if volume.size_of(copy["path"]) > equality.SIZE_BYTES_MAX:
                    return False
                content = b"".join(volume.read(copy["path"]))
                offset = part10.decode_file_meta(content[: part10.START_BYTES_MAX]).dataset_offset
            except PacsError:
                continue
            came = b"".join(self._receiving.read(file.path))[self._header_size_bytes :]
            return equality.same_content(
                (content[offset:], copy["transfer_syntax_uid"]), (came, self.announced.transfer_syntax_uid)
            )
        return False
