"""What a request of DICOMweb works with, and what its URL names."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.requests import Request

from pacs.archive.metadata import Metadata, Reader
from pacs.archive.outgoing import Outgoing, Transcoding, open_outgoing
from pacs.archive.retrieve import Retrieve, Wanted
from pacs.archive.store import Store
from pacs.errors import NotFound, TryAgainLater, UsageError
from pacs.index.database import Database
from pacs.model.uids import is_uid
from pacs.settings import Settings
from pacs.web.access import Access
from pacs.web.located import LocatedFrames
from pacs.web.trail import WebTrail

ROOT = "/dicom-web"
#: The parts of a URL that are UIDs → keyword.
UIDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
#: Frames that are decoded, and pictures that are made, at once: each takes memory and a processor.
DECODING_AT_ONCE = 2


class NotAtHand(TryAgainLater):
    """The archive has the object, and no copy of it can be read now. See `pacs check`."""


@dataclass
class Service:
    """The archive as DICOMweb sees it. For use by many threads."""

    settings: Settings
    database: Database
    retrieve: Retrieve
    store: Store
    transcoding: Transcoding
    metadata: Metadata
    access: Access
    trail: WebTrail
    frames: LocatedFrames = field(default_factory=LocatedFrames)
    decoding: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(DECODING_AT_ONCE))

    def base(self, request: Request) -> str:
        """The URL of DICOMweb's root as the asker knows it."""
        scheme = request.headers.get("x-forwarded-proto", "http") if self.access.is_behind_proxy else request.url.scheme
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            raise UsageError("The request's Host is no host's name.")
        return f"{'https' if scheme == 'https' else 'http'}://{host}{ROOT}"

    def wanted(self, request: Request) -> list[Wanted]:
        """The objects below what a URL names. Raise NotFound if there are none."""
        return self.objects({UIDS[name]: uid for name, uid in request.path_params.items() if name in UIDS})

    def reader(self, wanted: Wanted) -> Reader:
        """An object's data set, to be read where one likes; close it. Raise TryAgainLater if it is not at hand now."""
        try:
            return Reader(self.retrieve, wanted, self.transcoding)
        except NotFound as error:
            raise NotAtHand(str(error)) from error

    def opened(self, wanted: Wanted, target: str) -> Outgoing:
        """An object's data set in a transfer syntax; close it. Raise TryAgainLater if it is not at hand now."""
        changes = self.retrieve.give_changes([wanted]).get(wanted.object_key)
        try:
            return open_outgoing(self.retrieve, wanted, target, self.transcoding, changes)
        except NotFound as error:
            raise NotAtHand(str(error)) from error

    def objects(self, uids: dict[str, str]) -> list[Wanted]:
        """The objects below what these UIDs name, by keyword. Raise UsageError, NotFound."""
        require_uids(uids.values())
        found = self.retrieve.wanted({keyword: [uid] for keyword, uid in uids.items()})
        if not found:
            raise NotFound("There is no such study, series or instance.")
        return found


def require_uids(values: Iterable[str]) -> None:
    """Raise UsageError unless all of these are UIDs (PS3.5 9)."""
    for value in values:
        if not is_uid(value):
            raise UsageError("The URL holds what is no UID.")


def path_uids(request: Request) -> dict[str, str]:
    """The UIDs that a URL names, by keyword. Raise UsageError."""
    found = {UIDS[name]: uid for name, uid in request.path_params.items() if name in UIDS}
    require_uids(found.values())
    return found


def tag_of(wanted: Wanted) -> str:
    """What tells an object's bytes from all others': a path holds their digest, and is used once."""
    return f"{wanted.object_key} {wanted.copies[0].path if wanted.copies else ''}"


def internal_path(path: str) -> str:
    """A path as X-Accel-Redirect takes it: percent-encoded."""
    return quote(path)
