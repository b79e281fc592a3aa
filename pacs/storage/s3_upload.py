"""Objects sent to an S3 bucket: whole under their key, or not there; a key is used once.

A small object is one request. A larger one goes in parts, of which one at a time is in memory, and appears when all
are there; on any failure what was sent is given up. Every part carries its SHA-256 in the signature and, for an
endpoint that knows it, in a checksum header. An endpoint that knows conditions refuses a key that is taken; for one
that does not, the key is looked up before.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from botocore import exceptions as botocore_errors

from pacs.errors import PathTaken, VolumeFailed
from pacs.storage.s3_client import Place, code_of, translated

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef

log = logging.getLogger(__name__)

#: A part of a large object [bytes]: what one upload holds in memory. 10,000 parts are the most: 160 GB.
PART_SIZE_BYTES = 16 << 20


class Uploads:
    """Sends objects to one bucket. For use by many threads."""

    def __init__(self, client: S3Client, place: Place, is_locked: bool = False) -> None:
        """is_locked: the bucket locks what is put, and wants to be told how its bytes are summed."""
        self._client, self._place = client, place
        self._summed: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if is_locked else {}
        #: Whether the endpoint knows `If-None-Match`: found out at the first put.
        self._conditions = True

    def put(self, key: str, chunks: Iterable[bytes | memoryview], size_bytes: int) -> bytes:
        """Send an object; return the SHA-256 of what was given. Raise an error of the tree, or what the chunks do."""
        digest = hashlib.sha256()
        parts = _in_parts(chunks, digest)
        first = next(parts, b"")
        if len(first) < PART_SIZE_BYTES:
            _require_size(len(first), size_bytes)
            self._put_whole(key, first)
        else:
            self._put_parts(key, first, parts, size_bytes)
        return digest.digest()

    def replace(self, key: str, content: bytes) -> None:
        """Send a small object in the place of what is there."""
        with translated(self._place):
            self._put_object(key, content, {})

    def _put_whole(self, key: str, content: bytes) -> None:
        with translated(self._place):
            try:
                self._once(key, lambda condition: self._put_object(key, content, condition))
            except botocore_errors.ClientError as error:
                if code_of(error) not in ("PreconditionFailed", "412"):
                    raise
                # A try of ours whose answer was lost may have made it: then it is what we sent.
                if self._content_of(key, len(content)) != content:
                    raise self._taken() from error

    def _put_object(self, key: str, content: bytes, condition: dict[str, Any]) -> None:
        answer = self._client.put_object(
            Bucket=self._place.bucket,
            Key=key,
            Body=content,
            ChecksumSHA256=_sha256(content),
            **self._summed,
            **condition,
        )
        if not answer.get("ETag"):
            self._withdraw(key)
        self._require_kept(answer.get("ETag"))

    def _put_parts(self, key: str, first: bytes, rest: Iterator[bytes], size_bytes: int) -> None:
        bucket = self._place.bucket
        with translated(self._place):
            upload_id = self._client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        try:
            sent: list[CompletedPartTypeDef] = []
            sent_bytes, part = 0, first
            while part:
                with translated(self._place):
                    etag = self._client.upload_part(
                        Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=len(sent) + 1, Body=part
                    ).get("ETag")
                self._require_kept(etag)
                sent.append({"PartNumber": len(sent) + 1, "ETag": etag})
                sent_bytes += len(part)
                part = next(rest, b"")
            _require_size(sent_bytes, size_bytes)
            with translated(self._place):
                self._complete(key, upload_id, sent)
        except BaseException:  # of the chunks' source, too
            self.give_up(key, upload_id)
            raise
        self._require_size_there(key, size_bytes)

    def _complete(self, key: str, upload_id: str, sent: list[CompletedPartTypeDef]) -> None:
        def complete(condition: dict[str, Any]) -> None:
            answer = self._client.complete_multipart_upload(
                Bucket=self._place.bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": sent}, **condition
            )
            self._require_kept(answer.get("ETag"))

        self._once(key, complete)

    def _once(self, key: str, put: Callable[[dict[str, Any]], None]) -> None:
        """Have a put refused if its key is taken: by the endpoint, or where it knows no conditions, by looking."""
        if self._conditions:
            try:
                put({"IfNoneMatch": "*"})
                return
            except botocore_errors.ClientError as error:
                if code_of(error) not in ("NotImplemented", "501", "InvalidArgument", "InvalidRequest"):
                    raise
                self._conditions = False
                log.info("%s knows no conditional put: keys are looked up before each", self._place.location)
        try:
            self._client.head_object(Bucket=self._place.bucket, Key=key)
        except botocore_errors.ClientError as error:
            if code_of(error) not in ("404", "NoSuchKey", "NotFound"):
                raise
            put({})
            return
        raise self._taken()

    def give_up(self, key: str, upload_id: str) -> None:
        """Abort an upload in parts; one that is gone already, or an endpoint that is, is no fault here."""
        with contextlib.suppress(botocore_errors.ClientError, botocore_errors.BotoCoreError):
            self._client.abort_multipart_upload(Bucket=self._place.bucket, Key=key, UploadId=upload_id)

    def _withdraw(self, key: str) -> None:
        """Take back what did not count. Where that fails too, reconciliation finds an object without a row."""
        with contextlib.suppress(botocore_errors.ClientError, botocore_errors.BotoCoreError):
            self._client.delete_object(Bucket=self._place.bucket, Key=key)

    def _content_of(self, key: str, size_bytes: int) -> bytes:
        answer = self._client.get_object(Bucket=self._place.bucket, Key=key)
        return answer["Body"].read() if answer["ContentLength"] == size_bytes else b""

    def _require_size_there(self, key: str, size_bytes: int) -> None:
        with translated(self._place):
            found = self._client.head_object(Bucket=self._place.bucket, Key=key)["ContentLength"]
        if found != size_bytes:
            self._withdraw(key)
            raise VolumeFailed(
                f"{self._place.location}: {size_bytes} bytes were sent and {found} are there. Look at the endpoint."
            )

    def _require_kept(self, etag: str | None) -> None:
        if not etag:
            raise VolumeFailed(
                f"{self._place.location}: {self._place.endpoint} said yes to a write, without saying what it wrote. "
                "It does not count. Look at what answers there: a proxy?"
            )

    def _taken(self) -> PathTaken:
        return PathTaken(
            f"{self._place.location}: something is at a key that is used once. Does another write into this bucket?"
        )


def _require_size(found_bytes: int, said_bytes: int) -> None:
    if found_bytes != said_bytes:
        raise VolumeFailed(f"A file of {said_bytes} bytes gave {found_bytes}. It was not kept. Look at its source.")


def _sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def _in_parts(chunks: Iterable[bytes | memoryview], digest: Any) -> Iterator[bytes]:
    """The chunks as parts of PART_SIZE_BYTES, the last one less."""
    part = bytearray()
    for chunk in chunks:
        digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            room = PART_SIZE_BYTES - len(part)
            part += rest[:room]
            rest = rest[room:]
            if len(part) == PART_SIZE_BYTES:
                yield bytes(part)
                part.clear()
    if part:
        yield bytes(part)
