"""The metadata of a study as DICOM JSON: made from its objects' headers, kept in one file, given in one read.

The file is `metadata/<study key>.json.gz` on a volume of tier 1, beside the objects. It is nothing that must be kept:
it names the objects that it was made of, and is made again where they are no longer the study's, or it cannot be read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from pacs.archive.outgoing import Transcoding, open_outgoing
from pacs.archive.retrieve import Retrieve, Wanted
from pacs.archive.volumes import Volumes
from pacs.errors import CannotUnderstand, NotFound, PacsError
from pacs.index import metadata as rows
from pacs.model.dataset import DEFLATED, EXPLICIT_VR_LITTLE_ENDIAN
from pacs.model.dicom_json import Described, Window, describe
from pacs.model.recode import Changes
from pacs.model.record import study_key
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)

#: Stands where the URL of the archive's root comes (`https://pacs.example/dicom-web`), which each asker has its own of.
BASE = "pacs-base:"
_FORMAT = 1
_MAKING_MAX = 2


@dataclass(frozen=True)
class Instance:
    """An instance's metadata: its JSON in UTF-8."""

    series_instance_uid: str
    sop_instance_uid: str
    content: bytes


@dataclass(frozen=True)
class StudyMetadata:
    """A study's metadata, an instance after the other, and what changes when it does."""

    study_key: int
    fingerprint: str
    instances: list[Instance]


class Reader:
    """A stored data set that is read where one likes, while it is open. Close it.

    One that is deflated or to be changed is whole in memory, which the limit of transcoding bounds.
    """

    def __init__(self, retrieve: Retrieve, wanted: Wanted, transcoding: Transcoding) -> None:
        changes = retrieve.give_changes([wanted]).get(wanted.object_key)
        self.transfer_syntax_uid = wanted.transfer_syntax_uid
        self.size_bytes_max = transcoding.size_bytes_max
        if wanted.transfer_syntax_uid in DEFLATED or changes:
            self.transfer_syntax_uid = EXPLICIT_VR_LITTLE_ENDIAN if not changes else wanted.transfer_syntax_uid
            self.window = Window.of(_in_memory(retrieve, wanted, self.transfer_syntax_uid, transcoding, changes))
            self._close: Callable[[], None] = _nothing_to_close
            return
        stored = retrieve.open(wanted)

        def read_at(offset: int, size: int) -> bytes:
            buffer = bytearray(size)
            stored.read_into(memoryview(buffer), offset)
            return bytes(buffer)

        self.window, self._close = Window(read_at, stored.size_bytes), stored.close

    def close(self) -> None:
        """Close it."""
        self._close()


def _nothing_to_close() -> None:
    pass


def _in_memory(
    retrieve: Retrieve, wanted: Wanted, target: str, transcoding: Transcoding, changes: Changes | None
) -> bytes:
    size, parts = 0, []
    with closing(open_outgoing(retrieve, wanted, target, transcoding, changes)) as outgoing:
        for piece in outgoing.pieces:
            size += len(piece)
            if size > transcoding.size_bytes_max:
                raise CannotUnderstand("The object is too large to be looked into. Raise transcode_size_bytes_max.")
            parts.append(bytes(piece))
    return b"".join(parts)


class Metadata:
    """Gives studies' metadata, made on demand or before."""

    def __init__(self, retrieve: Retrieve, volumes: Volumes, transcoding: Transcoding) -> None:
        self.retrieve, self.volumes, self.transcoding = retrieve, volumes, transcoding
        self._making = threading.BoundedSemaphore(_MAKING_MAX)

    def of_study(self, study_instance_uid: str) -> StudyMetadata:
        """A study's metadata. Raise NotFound if there is no such study."""
        key, found = rows.study_now(self.retrieve.database, study_instance_uid)
        if not key:
            raise NotFound("There is no such study.")
        kept = self._kept(study_instance_uid, found)
        if kept is not None:
            return StudyMetadata(key, found, kept)
        with self._making:
            kept = self._kept(study_instance_uid, found)  # somebody may have made it meanwhile
            if kept is None:
                kept = self._make(study_instance_uid)
                self._keep(study_instance_uid, found, kept)
        return StudyMetadata(key, found, kept)

    def of_object(self, wanted: Wanted, bulk_uri: str) -> Described:
        """One object's own; raise what cannot be read."""
        with closing(Reader(self.retrieve, wanted, self.transcoding)) as reader:
            return describe(reader.window, reader.transfer_syntax_uid, bulk_uri)

    def _make(self, study_instance_uid: str) -> list[Instance]:
        database = self.retrieve.database
        series = rows.series_of_objects(database, study_instance_uid)
        wanted = self.retrieve.wanted({"StudyInstanceUID": [study_instance_uid]})
        return [
            each for each in (self._instance(study_instance_uid, one, series) for one in wanted) if each is not None
        ]

    def _instance(self, study_uid: str, wanted: Wanted, series: dict[int, str]) -> Instance | None:
        series_uid = series.get(wanted.object_key)
        if series_uid is None:
            return None
        uri = f"{BASE}/studies/{study_uid}/series/{series_uid}/instances/{wanted.sop_instance_uid}/bulkdata/"
        try:
            found = self.of_object(wanted, uri).json
        except CannotUnderstand as error:  # the others are there all the same
            log.warning("an object has no metadata: %s", error, extra={"object": wanted.object_key})
            return None
        found["00083002"] = {"vr": "UI", "Value": [wanted.transfer_syntax_uid]}  # Available Transfer Syntax UID
        content = json.dumps(dict(sorted(found.items())), ensure_ascii=False, separators=(",", ":"))
        return Instance(series_uid, wanted.sop_instance_uid, content.encode("utf-8", "replace"))

    # The file

    def _places(self) -> Iterator[Volume]:
        yield from self.volumes.tier(1)

    def _kept(self, study_instance_uid: str, fingerprint: str) -> list[Instance] | None:
        path = path_of(study_instance_uid)
        for volume in self._places():
            try:
                if volume.has(path):
                    return _parsed(gzip.decompress(volume.read_small(path)), fingerprint)
            except (PacsError, OSError, EOFError, zlib.error, ValueError):
                continue  # it is made again
        return None

    def _keep(self, study_instance_uid: str, fingerprint: str, instances: Sequence[Instance]) -> None:
        header = json.dumps({"format": _FORMAT, "fingerprint": fingerprint}).encode()
        lines = (f"{each.series_instance_uid} {each.sop_instance_uid} ".encode() + each.content for each in instances)
        content = gzip.compress(b"\n".join((header, *lines)), 6)
        for volume in self._places():
            try:
                volume.require_room(len(content))
                volume.replace_small(path_of(study_instance_uid), content)
                return
            except PacsError as error:
                log.warning("a study's metadata is not kept: %s", error)


def path_of(study_instance_uid: str) -> str:
    """Where a study's metadata is kept on its volume."""
    name = study_key(study_instance_uid)
    return f"metadata/{name[:2]}/{name}.json.gz"


def etag_of(fingerprint: str, *parts: str) -> str:
    """An entity tag (RFC 9110 8.8.3) of an answer made of a study's metadata."""
    return hashlib.sha256("\n".join((fingerprint, *parts)).encode()).hexdigest()[:32]


def _parsed(content: bytes, fingerprint: str) -> list[Instance] | None:
    header, *lines = content.split(b"\n")
    if json.loads(header) != {"format": _FORMAT, "fingerprint": fingerprint}:
        return None
    found = []
    for line in lines:
        series_uid, sop_uid, instance = line.split(b" ", 2)
        found.append(Instance(series_uid.decode(), sop_uid.decode(), instance))
    return found
