"""Giving objects back: which are asked for, and where a good copy of each is now."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from pacs.errors import CannotUnderstand, NotFound, PacsError
from pacs.index import query, store
from pacs.index.database import Database
from pacs.model import part10
from pacs.model.byteorder import swap_words
from pacs.storage.files import Volume


@dataclass(frozen=True)
class Wanted:
    """An object that a retrieve is to send."""

    object_key: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int


@dataclass(frozen=True)
class Found:
    """Where the bytes of an object are: its file, where its data set starts in it and how long it is [bytes]."""

    volume: Volume
    path_on_volume: str
    dataset_offset: int
    dataset_size_bytes: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.volume.path_of(self.path_on_volume)

    def read(self) -> Iterator[bytes]:
        """The data set's bytes in pieces."""
        return self.volume.read(self.path_on_volume, self.dataset_offset)


class Retrieve:
    """Finds objects and their bytes on the volumes."""

    def __init__(self, database: Database, volumes: Mapping[str, Volume]) -> None:
        self.database = database
        self.volumes = volumes

    def wanted(self, uids: Mapping[str, Collection[str]]) -> list[Wanted]:
        """The objects below the entities with these unique keys (keyword → values)."""
        return [Wanted(**row) for row in query.objects_below(self.database, uids)]

    def locate(self, wanted: Wanted) -> Found:
        """A good copy of an object on the nearest tier. Raise NotFound if there is none."""
        with self.database.transaction() as connection:
            copies = store.good_copies(connection, wanted.object_key)
        for copy in copies:
            volume = self.volumes.get(copy["volume_id"])
            if volume is not None and volume.has(copy["path"]):
                start = volume.read_start(copy["path"], part10.START_BYTES_MAX)
                offset = part10.decode_file_meta(start).dataset_offset
                return Found(volume, copy["path"], offset, wanted.size_bytes - offset)
        raise NotFound("No good copy of the object is at hand. Run `pacs reconcile run`, and look at its volumes.")


def transcode(found: Found, transfer_syntax_uid: str) -> bytes:
    """The object's data set, encoded in an uncompressed transfer syntax.

    Raise CannotUnderstand with the reason if there is no codec for it, or its pixels cannot be decoded.
    """
    target = UID(transfer_syntax_uid)
    try:
        ds = pydicom.dcmread(found.path)
        source = UID(ds.file_meta.TransferSyntaxUID)
        if source.is_compressed and not source.is_deflated and "PixelData" in ds:
            ds.decompress(generate_instance_uid=False)
        if source.is_little_endian != target.is_little_endian:
            swap_words(ds)
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = target.is_implicit_VR, target.is_little_endian
        write_dataset(buffer, ds)
    except PacsError:
        raise
    except Exception as error:  # codecs raise what they like
        raise CannotUnderstand(
            f"The object cannot be sent in {target.name}: it is stored in another transfer syntax "
            f"and decoding failed ({type(error).__name__}). Let the receiver accept the stored one."
        ) from error
    return bytes(buffer.getvalue())
