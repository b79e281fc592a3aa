"""A volume in an S3 bucket, of whatever endpoint. It holds copies; nothing is received on it.

What an endpoint keeps is not ours to make sure: a copy counts after it was read back from there and its SHA-256 was
compared (`digest_on_disk`). Keys are the paths of every other volume, below a prefix; `volume.json` stands there too
and is compared before anything is written or removed, so that another's bucket, or one that was emptied, is noticed.
An upload in parts that nobody finished is listed below `incoming/`, as an unfinished file is elsewhere.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, TypeVar

from pacs import clock
from pacs.errors import ForeignVolume, NotFound, PacsError, VolumeFailed, VolumeMissing
from pacs.storage import s3_download, s3_lock
from pacs.storage.kinds import FileStatus, Room, ToPut
from pacs.storage.promises import S3
from pacs.storage.s3_client import reading, translated
from pacs.storage.s3_place import reach, read_identity_object
from pacs.storage.s3_upload import Uploads
from pacs.storage.together import put_each
from pacs.storage.volume import VolumeIdentity

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: How long it is believed that the bucket is still this volume's, between two writes [s].
_PRESENT_FOR_S = 10.0
#: How long an endpoint that could not be asked is left alone [s].
_ABSENT_FOR_S = 5.0
#: How many objects of a batch are on their way at once.
_PUTS_AT_ONCE = 8
#: The largest object that an endpoint copies in one request [bytes].
_COPY_SIZE_BYTES_MAX = 5 << 30


class S3Volume:
    """An open volume in a bucket."""

    promise = S3

    def __init__(self, location: str, role: str, options: Mapping[str, Any], credentials_file: Path) -> None:
        """Open the volume at s3://bucket/prefix. Raise VolumeMissing if it is not there or not for this role."""
        self._where, self._options, self._credentials_file = location, options, credentials_file
        self._present_until_s, self._absent_until_s = 0.0, 0.0
        self._absence: PacsError | None = None
        self._lock = threading.Lock()
        self._connect()
        self.identity: VolumeIdentity = read_identity_object(self._client, self._place)
        if role not in self.identity.roles:
            raise VolumeMissing(f"The volume at {location} is for {', '.join(self.identity.roles)}, not for {role}.")

    @property
    def volume_id(self) -> str:
        """The id in the volume's identity object."""
        return self.identity.volume_id

    @property
    def location(self) -> str:
        """s3://bucket/prefix"""
        return self._place.location

    def require_present(self) -> None:
        """Raise VolumeMissing or ForeignVolume unless the identity object is the one that was opened.

        What was seen a few seconds ago counts: one asks, and the others do not wait for an endpoint that is down.
        """
        with self._lock:
            now = clock.monotonic_s()
            if now < self._present_until_s:
                return
            if self._absence is not None and now < self._absent_until_s:
                raise type(self._absence)(str(self._absence))
            try:
                self._look()
            except PacsError as error:
                self._absence, self._absent_until_s = error, clock.monotonic_s() + _ABSENT_FOR_S
                raise
            self._absence = None

    def _look(self) -> None:
        self._present_until_s = 0.0
        if _stamp(self._credentials_file) != self._credentials_stamp:  # a person wrote other keys
            self._connect()
        found = read_identity_object(self._client, self._place)
        if found != self.identity:
            kind = ForeignVolume if found.appliance_id != self.identity.appliance_id else VolumeMissing
            raise kind(
                f"Another volume came to {self.location}: {found.volume_id} of appliance {found.appliance_id}. "
                f"Nothing was written. Bring back {self.volume_id}, or give the other a prefix of its own."
            )
        self._present_until_s = clock.monotonic_s() + _PRESENT_FOR_S

    def _connect(self) -> None:
        stamp = _stamp(self._credentials_file)
        self._client, self._place = reach(self._where, self._options, self._credentials_file)
        self._uploads = Uploads(self._client, self._place, bool(self._options.get("retention_days")))
        self._credentials_stamp = stamp

    def require_writable(self) -> None:
        """The same. Whether the credentials may write shows when something is written."""
        self.require_present()

    def room(self) -> Room:
        """No bound is known, and what is taken is known to the index."""
        return Room(None, 0, None)

    def require_room(self, size_bytes: int = 0) -> None:
        """Nothing: an endpoint that has no room says so at the write."""

    def put(self, path: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Send an object, whole or not at all; return the SHA-256 of what was given. It counts once it is read back."""
        self.require_present()
        return self._uploads.put(self._key(path), chunks, size_bytes)

    def put_many(self, files: Sequence[ToPut]) -> list[bytes | PacsError]:
        """The same for many objects, several at once; beside each its SHA-256, or why it is not there."""
        return put_each(self, files, _PUTS_AT_ONCE)

    def open(self, path: str) -> s3_download.ObjectReader:
        """Open an object for reading. Raise NotFound."""
        return self._or_volume_missing(lambda: s3_download.ObjectReader(self._client, self._place, self._key(path)))

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """An object's bytes in chunks, from an offset [bytes]. Raise NotFound."""
        try:
            yield from s3_download.stream(self._client, self._place, self._key(path), offset)
        except NotFound:
            self._look()
            raise

    def read_start(self, path: str, size_bytes: int) -> bytes:
        """An object's first bytes, at most size_bytes. Raise NotFound."""
        return self._or_volume_missing(
            lambda: s3_download.start_of(self._client, self._place, self._key(path), size_bytes)
        )

    def size_of(self, path: str) -> int:
        """An object's size [bytes]. Raise NotFound."""
        return self._or_volume_missing(lambda: self._head(self._key(path)))

    def has(self, path: str) -> bool:
        """Whether there is an object at path."""
        try:
            self.size_of(path)
        except NotFound:
            return False
        return True

    def read_on_disk(self, path: str) -> Iterator[bytes]:
        """An object's bytes as the endpoint gives them back; then its lock is renewed. Raise NotFound."""
        yield from self.read(path)
        self._renew_lock(path)

    def digest_on_disk(self, path: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """SHA-256 of an object as the endpoint gives it back, all of it. Raise NotFound."""
        digest = hashlib.sha256()
        for chunk in self.read_on_disk(path):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
        return digest.digest()

    @property
    def lock(self) -> s3_lock.Lock | None:
        """How the bucket locks what is put into it; None if it does not."""
        return s3_lock.lock_of(self._client, self._place)

    def _renew_lock(self, path: str) -> None:
        days = self._options.get("retention_days")
        if days:
            try:
                s3_lock.renew(self._client, self._place, self._key(path), days)
            except PacsError as error:
                log.warning("the lock of an object in %s was not renewed: %s", self.location, error)

    def remove(self, path: str) -> None:
        """Remove an object, or an unfinished upload; one that is gone already is no fault."""
        self.require_present()
        unfinished = _unfinished_of(path)
        if unfinished is not None:
            self._uploads.give_up(self._key(unfinished[0]), unfinished[1])
            return
        with translated(self._place):
            self._client.delete_object(Bucket=self._place.bucket, Key=self._key(path))

    def quarantine(self, path: str) -> str:
        """Move an object that is nobody's below `quarantine/`: copied, found to be there in full, then removed."""
        self.require_present()
        target = f"quarantine/{secrets.token_hex(4)}-{Path(path).name}"
        size_bytes = self.size_of(path)
        if size_bytes > _COPY_SIZE_BYTES_MAX:
            self._uploads.put(self._key(target), self.read(path), size_bytes)
        else:
            with translated(self._place):
                self._client.copy_object(
                    Bucket=self._place.bucket, Key=self._key(target),
                    CopySource={"Bucket": self._place.bucket, "Key": self._key(path)},
                )  # fmt: skip
        if self.size_of(target) != size_bytes:
            raise VolumeFailed(f"{self.location}: a copy to quarantine/ is not whole. The object stays where it is.")
        self.remove(path)
        return target

    def names(self, folder: str) -> list[str]:
        """The names of what is directly below a folder, in no order; none if there is nothing."""
        prefix, found = f"{self._place.prefix}{folder}/", list[str]()
        with translated(self._place):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._place.bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                found += [each["Prefix"].removeprefix(prefix).rstrip("/") for each in page.get("CommonPrefixes", ())]
                found += [each["Key"].removeprefix(prefix) for each in page.get("Contents", ())]
        return found

    def walk(self, below: str = "") -> Iterator[FileStatus]:
        """Every object below a folder; below `objects/` and `incoming/` if none is named, and then every unfinished
        upload as a file of `incoming/`."""
        prefix = self._place.prefix
        for top in (f"{below}/",) if below else ("objects/", "incoming/"):
            with reading(self._place):
                pages = self._client.get_paginator("list_objects_v2").paginate(
                    Bucket=self._place.bucket, Prefix=prefix + top
                )
                for page in pages:
                    for each in page.get("Contents", ()):
                        modified_at = each["LastModified"].astimezone(UTC)
                        yield FileStatus(each["Key"].removeprefix(prefix), each["Size"], modified_at)
        if below:
            return
        with reading(self._place):
            uploads = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._place.bucket, Prefix=prefix
            )
            for upload_page in uploads:
                for upload in upload_page.get("Uploads", ()):
                    path = f"incoming/{upload['Key'].removeprefix(prefix)}#{upload['UploadId']}"
                    yield FileStatus(path, 0, upload["Initiated"].astimezone(UTC))

    def read_small(self, path: str) -> bytes:
        """A small object beside the others. Raise NotFound."""
        return b"".join(self.read(path))

    def replace_small(self, path: str, content: bytes) -> None:
        """Write a small object, and read it back."""
        self.require_present()
        self._uploads.replace(self._key(path), content)
        if self.read_small(path) != content:
            raise VolumeFailed(f"{self.location} did not keep what was written. Look at the endpoint.")

    def close(self) -> None:
        """Let go of the connections; once more does nothing."""
        self._client.close()

    def _key(self, path: str) -> str:
        return self._place.prefix + path

    def _head(self, key: str) -> int:
        with reading(self._place):
            return self._client.head_object(Bucket=self._place.bucket, Key=key)["ContentLength"]

    def _or_volume_missing(self, read: Callable[[], _T]) -> _T:
        """What `read` returns. An object that is not there is one thing, a bucket that was emptied another."""
        try:
            return read()
        except NotFound:
            self._look()
            raise


def _unfinished_of(path: str) -> tuple[str, str] | None:
    """Path and upload id of an unfinished upload that `walk` listed; None if it is a file."""
    name, hash_sign, upload_id = path.removeprefix("incoming/").partition("#")
    return (name, upload_id) if hash_sign and path.startswith("incoming/") else None


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
