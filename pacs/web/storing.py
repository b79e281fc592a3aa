"""What STOW-RS does with the parts of a request: each object goes to the same store as a C-STORE's, with its promise.

An object counts as stored when it is safe: fsynced and committed. What came with each is kept for the answer.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import pydicom

from pacs.archive.store import Announced, Arriving, Store, StoreSession
from pacs.errors import CannotUnderstand, PacsError
from pacs.model.dataset import Scanner
from pacs.model.uids import TRANSFER_SYNTAXES, is_uid, may_be_storage

log = logging.getLogger(__name__)

#: A file's preamble and meta information are at most so long [bytes].
_META_SIZE_BYTES_MAX = 64 << 10
_STUDY, _SERIES = 0x0020000D, 0x0020000E


class OtherStudy(CannotUnderstand):
    """The object is of another study than the request's URL names. Send it to /studies."""

    status = 0xA900  # Data Set does not match, PS3.4 Table B.2-1


class NotStorage(CannotUnderstand):
    """The object's SOP class is none that is stored. Send objects of storage SOP classes."""

    status = 0x0122  # SOP Class not supported, PS3.7 C.5.6


@dataclass
class Stored:
    """What became of an object. `status`: 0, or why it failed, as C-STORE would answer."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    status: int = 0
    reason: str = ""
    error: PacsError | None = None


@dataclass
class Storing:
    """The objects of one request. For one thread at a time."""

    store: Store
    #: Gives the request's row among the associations: it has one from the first object on.
    association_key: Callable[[], int]
    study_instance_uid: str = ""
    transfer_syntaxes: frozenset[str] = frozenset(TRANSFER_SYNTAXES)
    results: list[Stored] = field(default_factory=list)
    session: StoreSession = field(default_factory=StoreSession)

    def begin(self) -> ObjectSink:
        """Take in an object that comes as a file of PS3.10."""
        return ObjectSink(self)

    def require_known(self, sop_class_uid: str, transfer_syntax_uid: str) -> None:
        """Raise CannotUnderstand for what a C-STORE could not send either."""
        if not may_be_storage(sop_class_uid):
            raise NotStorage
        if transfer_syntax_uid not in self.transfer_syntaxes:
            raise CannotUnderstand(
                "The object's transfer syntax is not one of PS3.6. Private ones are taken when extra_transfer_syntaxes "
                "has their UIDs."
            )

    def note(self, result: Stored, error: PacsError | None) -> None:
        """Keep what became of one."""
        if error is not None:
            result.status, result.reason, result.error = error.status, str(error), error
            log.warning("object refused with 0x%04X: %s", error.status, error, extra={"calling_ae": "DICOMweb"})
        self.results.append(result)


class ObjectSink:
    """An object on its way in as a file of PS3.10."""

    def __init__(self, storing: Storing) -> None:
        self._storing = storing
        self._start = bytearray()
        self._arriving: Arriving | None = None
        self._scanner: Scanner | None = None
        self._result = Stored()
        self._error: PacsError | None = None

    def write(self, piece: memoryview) -> None:
        """Take the next bytes. After an error the rest is let pass by."""
        if self._error is not None:
            return
        try:
            if self._arriving is None:
                self._start += piece
                rest = self._open()
                if rest is None:
                    return
                piece = memoryview(rest)
            assert self._arriving is not None and self._scanner is not None
            self._arriving.write(piece)
            self._scanner.feed(piece)
        except PacsError as error:
            self._fail(error)

    def finish(self) -> None:
        """The part is whole: store the object."""
        error = self._error
        if error is None:
            try:
                self._finish()
            except PacsError as fault:
                error = fault
            except Exception:
                log.exception("an object was not stored", extra={"calling_ae": "DICOMweb"})
                error = PacsError("The archive failed; see its log.")
        if error is not None and self._arriving is not None:
            self._arriving.abandon()
        self._storing.note(self._result, error)

    def refuse(self, error: PacsError) -> None:
        """Nothing came of it."""
        self._storing.note(self._result, error)

    def abandon(self) -> None:
        """The rest does not come."""
        self._fail(CannotUnderstand("The object was cut off on its way."))
        assert self._error is not None
        self._storing.note(self._result, self._error)

    def _fail(self, error: PacsError) -> None:
        if self._error is None:
            self._error = error
        if self._arriving is not None:
            self._arriving.abandon()

    def _open(self) -> bytes | None:
        """Begin to store once the meta information is there; return what is behind it of the data set."""
        found = meta_of(self._start)
        if found is None:
            return None
        sop_class_uid, sop_instance_uid, syntax, offset = found
        self._result.sop_class_uid, self._result.sop_instance_uid = sop_class_uid, sop_instance_uid
        self._storing.require_known(sop_class_uid, syntax)
        self._scanner = Scanner(syntax, (_STUDY, _SERIES))
        announced = Announced(sop_class_uid, sop_instance_uid, syntax, self._storing.association_key())
        self._arriving = self._storing.store.begin(announced, self._storing.session)
        rest = bytes(self._start[offset:])
        self._start = bytearray()
        return rest

    def _finish(self) -> None:
        if self._arriving is None or self._scanner is None:
            raise CannotUnderstand("The part is no file of PS3.10: it is too short.")
        values = self._scanner.finish()
        study, series = (values.get(tag, b"").decode("ascii", "replace").strip(" \0") for tag in (_STUDY, _SERIES))
        if self._storing.study_instance_uid not in ("", study):
            raise OtherStudy
        self._result.study_instance_uid, self._result.series_instance_uid = study, series
        self._arriving.finish()


def meta_of(start: bytes | bytearray) -> tuple[str, str, str, int] | None:
    """SOP class, SOP instance, transfer syntax and where the data set begins, of a file's start; None if it is not
    all there yet. Raise CannotUnderstand if it is no such file."""
    if len(start) < 144:
        return None
    if start[128:132] != b"DICM":
        raise CannotUnderstand("The part is no file of PS3.10: there is no DICM behind its preamble.")
    group, element, vr, _size, length = struct.unpack("<HH2sHL", bytes(start[132:144]))
    if (group, element, vr) != (2, 0, b"UL"):
        raise CannotUnderstand("The file's meta information does not begin with its length (PS3.10 7.1).")
    if length > _META_SIZE_BYTES_MAX:
        raise CannotUnderstand("The file's meta information is too long.")
    end = 144 + length
    if len(start) < end:
        return None
    try:
        file = BytesIO(bytes(start[:end]))
        meta = pydicom.dcmread(file).file_meta
        found = tuple(str(meta.get(name, "")) for name in _META)
    except Exception as error:  # pydicom raises what it likes
        raise CannotUnderstand("The file's meta information cannot be read.") from error
    if not all(map(is_uid, found)):
        raise CannotUnderstand("The file's meta information names no SOP class, instance or transfer syntax.")
    return found[0], found[1], found[2], end


_META = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
