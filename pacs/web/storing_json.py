"""STOW-RS of metadata and bulk data (PS3.18 10.5.1.2): objects put together from DICOM JSON and the parts it refers to.

All of such a request is in memory, and bounded; whole objects come as application/dicom, which is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.errors import CannotUnderstand, PacsError, TooLarge, UsageError
from pacs.model import codec, part10
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.web.media import JSON, parsed
from pacs.web.storing import Storing

_META_TRANSFER_SYNTAX, _AVAILABLE_TRANSFER_SYNTAX = "00020010", "00083002"
_PIXEL_DATA = "7FE00010"


@dataclass
class _Bulk:
    """A part of bulk data: its bytes, part by part where several have one location, and its transfer syntax."""

    contents: list[bytes]
    transfer_syntax_uid: str


@dataclass
class MetadataStoring:
    """Gathers a request's parts, then stores its objects."""

    storing: Storing
    size_bytes_max: int
    _documents: list[bytes] = field(default_factory=list)
    _bulk: dict[str, _Bulk] = field(default_factory=dict)
    _size: int = 0

    def open_sink(self, headers: dict[str, str]) -> Gathering:
        """Who takes a part's bytes."""
        media_type, parameters = parsed(headers.get("content-type", ""))
        if media_type in (JSON, "application/json"):
            return Gathering(self, self._documents.append)
        location = headers.get("content-location", "")
        if not location:
            raise UsageError("A part of bulk data has no Content-Location.")

        def keep(content: bytes) -> None:
            bulk = self._bulk.setdefault(location, _Bulk([], parameters.get("transfer-syntax", "")))
            bulk.contents.append(content)

        return Gathering(self, keep)

    def count(self, size: int) -> None:
        """Count bytes. Raise TooLarge beyond what memory may take."""
        self._size += size
        if self._size > self.size_bytes_max:
            raise TooLarge(
                "Metadata and bulk data are larger than is taken this way. Send the objects as application/dicom, or "
                "raise transcode_size_bytes_max."
            )

    def run(self) -> None:
        """Store all objects of the request. Raise UsageError if the metadata is none."""
        for document in self._documents:
            try:
                found = json.loads(document)
            except (ValueError, RecursionError) as error:
                raise UsageError("The metadata is not JSON.") from error
            for each in found if isinstance(found, list) else [found]:
                self._store(each)

    def _store(self, described: Any) -> None:
        sink = self.storing.begin()
        try:
            content = encoded(described, self._given)
        except PacsError as error:
            sink.refuse(error)
            return
        sink.write(memoryview(content))
        sink.finish()

    def _given(self, uri: str) -> _Bulk:
        if uri not in self._bulk:
            raise CannotUnderstand("The metadata refers to bulk data that is not in the request.")
        return self._bulk[uri]


class Gathering:
    """A part that is gathered in memory."""

    def __init__(self, request: MetadataStoring, keep: Callable[[bytes], Any]) -> None:
        self._request, self._keep = request, keep
        self._content = bytearray()

    def write(self, piece: memoryview) -> None:
        """Take the next bytes."""
        self._request.count(len(piece))
        self._content += piece

    def finish(self) -> None:
        """The part is whole."""
        self._keep(bytes(self._content))

    def abandon(self) -> None:
        """The rest does not come: nothing was done yet."""


def encoded(described: Any, given: Callable[[str], _Bulk]) -> bytes:
    """A file of PS3.10 of DICOM JSON and its bulk data. Raise CannotUnderstand for what is none."""
    if not isinstance(described, dict):
        raise CannotUnderstand("The metadata is no DICOM JSON: an object of tags is looked for.")
    syntax = EXPLICIT_VR_LITTLE_ENDIAN
    for tag in (_AVAILABLE_TRANSFER_SYNTAX, _META_TRANSFER_SYNTAX):
        values = described[tag].get("Value") if isinstance(described.get(tag), dict) else None
        syntax = str(values[0]) if isinstance(values, list) and values else syntax
    uri = described[_PIXEL_DATA].get("BulkDataURI") if isinstance(described.get(_PIXEL_DATA), dict) else None
    pixels = given(uri) if isinstance(uri, str) else None
    if pixels is not None and pixels.transfer_syntax_uid not in ("", "*"):
        syntax = pixels.transfer_syntax_uid
    kept = {tag: value for tag, value in described.items() if tag[:4] != "0002" and tag != _AVAILABLE_TRANSFER_SYNTAX}
    is_native = syntax in codec.NATIVE
    if is_native:
        syntax = EXPLICIT_VR_LITTLE_ENDIAN  # how bulk data of pixels comes

    def bulk(tag: str, _vr: str, location: str) -> bytes:
        found = given(location)
        if tag.upper() == _PIXEL_DATA and not is_native:
            return encapsulate(found.contents)
        return b"".join(found.contents)

    try:
        ds = Dataset.from_json(kept, bulk_data_uri_handler=bulk)
        return _file(ds, syntax)
    except PacsError:
        raise
    except Exception as error:  # pydicom raises what it likes
        raise CannotUnderstand(f"The metadata is no DICOM JSON ({type(error).__name__}).") from error


def _file(ds: Dataset, syntax: str) -> bytes:
    ds.SpecificCharacterSet = "ISO_IR 192"
    if "PixelData" in ds and syntax not in codec.NATIVE:
        ds["PixelData"].is_undefined_length = True
        ds["PixelData"].VR = "OB"
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    with pydicom.config.disable_value_validation():
        write_dataset(buffer, ds)
    start = part10.encode_file_meta(str(ds.SOPClassUID), str(ds.SOPInstanceUID), syntax)
    return start + buffer.getvalue()
