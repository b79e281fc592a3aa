"""Objects read from an S3 bucket: in windows, for a reader that goes here and there, or from start to end.

Every request after the first asks for the same ETag, so that an object is never put together from two. A stream that
breaks off is taken up where it broke, a few times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from botocore import exceptions as botocore_errors

from pacs.errors import NotFound, VolumeFailed, VolumeMissing
from pacs.storage.s3_client import ATTEMPTS, Place, code_of, reading

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

#: What a reader asks of an object at a time, at least [bytes]: more than most objects are, and held by each reader.
WINDOW_SIZE_BYTES = 2 << 20
_CHUNK_SIZE_BYTES = 1 << 20


class ObjectReader:
    """An object that is being read. Its first window came with the question for its size."""

    def __init__(self, client: S3Client, place: Place, key: str) -> None:
        """Open an object. Raise NotFound or an error of the tree."""
        self._client, self._place, self._key = client, place, key
        self._start, self._window = 0, b""
        self._etag, self.size_bytes = "", 0
        self._fetch(0, WINDOW_SIZE_BYTES)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset [bytes]; return how much came: less only at the end. Raise VolumeFailed."""
        done = 0
        while done < len(buffer) and offset + done < self.size_bytes:
            at = offset + done - self._start
            if not 0 <= at < len(self._window):
                self._fetch(offset + done, max(len(buffer) - done, WINDOW_SIZE_BYTES))
                at = 0
            piece = self._window[at : at + len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def will_need(self, offset: int, size_bytes: int) -> None:
        """Nothing: windows are read as they are asked for."""

    def close(self) -> None:
        """Let go of what was read; once more does nothing."""
        self._window = b""

    def _fetch(self, offset: int, size_bytes: int) -> None:
        answer = ask(self._client, self._place, self._key, offset, offset + size_bytes - 1, self._etag)
        if answer is None:  # an empty object has no range
            return
        self._etag, self.size_bytes = answer["ETag"], _whole_size(answer)
        wanted = min(size_bytes, self.size_bytes - offset)
        self._window = b"".join(_body(self._client, self._place, self._key, answer, offset, wanted))
        self._start = offset


def stream(client: S3Client, place: Place, key: str, offset: int = 0) -> Iterator[bytes]:
    """An object's bytes from an offset [bytes], in chunks. Raise NotFound or an error of the tree."""
    answer = ask(client, place, key, offset, None, "")
    if answer is not None:
        yield from _body(client, place, key, answer, offset, _whole_size(answer) - offset)


def start_of(client: S3Client, place: Place, key: str, size_bytes: int) -> bytes:
    """An object's first bytes, at most size_bytes, and all of those that it has. Raise as `stream` does."""
    answer = ask(client, place, key, 0, size_bytes - 1, "")
    if answer is None:
        return b""
    return b"".join(_body(client, place, key, answer, 0, min(size_bytes, _whole_size(answer))))


def ask(client: S3Client, place: Place, key: str, first: int, last: int | None, etag: str) -> Any:
    """The answer to a request for the bytes from `first` to `last`, both included; None if there are none."""
    condition: Any = {"IfMatch": etag} if etag else {}
    if first or last is not None:
        condition["Range"] = f"bytes={first}-{'' if last is None else last}"
    with reading(place):
        try:
            return client.get_object(Bucket=place.bucket, Key=key, **condition)
        except botocore_errors.ClientError as error:
            if code_of(error) in ("InvalidRange", "416"):
                return None
            if code_of(error) in ("PreconditionFailed", "412"):
                raise NotFound(f"{place.location}: an object was replaced while it was read.") from error
            raise


def _body(client: S3Client, place: Place, key: str, answer: Any, offset: int, wanted: int) -> Iterator[bytes]:
    """`wanted` bytes from an offset on, of an answer that begins there; asked for again where it broke off."""
    done, failures = 0, 0
    while done < wanted:
        try:
            while done < wanted and (chunk := answer["Body"].read(min(_CHUNK_SIZE_BYTES, wanted - done))):
                done += len(chunk)
                yield chunk
        except botocore_errors.BotoCoreError as error:
            failures += 1
            if failures == ATTEMPTS:
                raise VolumeMissing(
                    f"{place.location}: {place.endpoint} broke off {failures} times in one object. Look at its log, "
                    "and at the network."
                ) from error
        if done < wanted:
            if failures == 0:
                raise VolumeMissing(f"{place.location}: {place.endpoint} gave {done} bytes of {wanted}.")
            answer = ask(client, place, key, offset + done, offset + wanted - 1, answer["ETag"])
            if answer is None:
                raise VolumeFailed(f"{place.location}: an object became shorter while it was read.")
    answer["Body"].close()


def _whole_size(answer: Any) -> int:
    """The object's size: of Content-Range, where the answer is a part."""
    stated = answer.get("ContentRange", "").rpartition("/")[2]
    return int(stated) if stated.isdigit() else int(answer["ContentLength"])
