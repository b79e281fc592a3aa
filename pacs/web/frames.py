"""WADO-RS: frames (PS3.18 10.4.1.1.3). A frame is read where it lies, and no more of the object than its header."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from pacs.archive.metadata import Reader, etag_of
from pacs.archive.retrieve import Wanted
from pacs.errors import CannotUnderstand, NotAcceptable, UsageError
from pacs.model import codec
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.model.dicom_json import describe
from pacs.model.frames import Frames, frames_of
from pacs.model.pieces import swapped
from pacs.model.rendering import decode_frame
from pacs.web import answers
from pacs.web.media import OCTETS, Asked, Offer, asked_by
from pacs.web.service import Service, tag_of

_FRAMES_ASKED_MAX = 10_000
_JPEG = "1.2.840.10008.1.2.4."
#: Media types of encoded frames (PS3.18 Tables 8.7.3-3 to 8.7.3-5), by transfer syntax.
MEDIA_TYPES = {
    **dict.fromkeys((f"{_JPEG}50", f"{_JPEG}51", f"{_JPEG}57", f"{_JPEG}70"), "image/jpeg"),
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    **dict.fromkeys((f"{_JPEG}80", f"{_JPEG}81"), "image/jls"),
    **dict.fromkeys((f"{_JPEG}90", f"{_JPEG}91"), "image/jp2"),
    **dict.fromkeys((f"{_JPEG}92", f"{_JPEG}93"), "image/jpx"),
    **dict.fromkeys((f"{_JPEG}201", f"{_JPEG}202", f"{_JPEG}203"), "image/jphc"),
    **dict.fromkeys((f"{_JPEG}110", f"{_JPEG}111", f"{_JPEG}112"), "image/jxl"),
    **dict.fromkeys((f"{_JPEG}100", f"{_JPEG}101"), "video/mpeg"),
    **dict.fromkeys((f"{_JPEG}102", f"{_JPEG}103", f"{_JPEG}104", f"{_JPEG}105", f"{_JPEG}106"), "video/mp4"),
    **dict.fromkeys((f"{_JPEG}107", f"{_JPEG}108"), "video/H265"),
}


@dataclass(frozen=True)
class Given:
    """How frames are given: their media type, and whether they are decoded for it."""

    offer: Offer
    transfer_syntax_uid: str
    is_decoded: bool

    @property
    def content_type(self) -> str:
        """Of a part."""
        return f"{self.offer.media_type}; transfer-syntax={self.transfer_syntax_uid}"


def frame_numbers(text: str) -> list[int]:
    """The frames that a URL names, from 1. Raise UsageError."""
    parts = text.split(",")
    if len(parts) > _FRAMES_ASKED_MAX or not all(
        each.isascii() and each.isdecimal() and 0 < len(each) < 8 and int(each) > 0 for each in parts
    ):
        raise UsageError("Frames are numbers from 1 on, with commas between.")
    return [int(each) for each in parts]


def frames(service: Service, request: Request) -> Response:
    """Some frames of an instance."""
    caller = service.access.caller(request, "read")
    numbers = frame_numbers(request.path_params["frames"])
    wanted = service.wanted(request)[0]
    given = given_as(wanted.transfer_syntax_uid, asked_by(request))
    etag = etag_of("frames", tag_of(wanted), given.content_type, str(given.offer), str(numbers))
    headers = {"ETag": f'"{etag}"'}
    if answers.is_known(request, etag):
        return answers.empty(304, headers)
    reader = service.reader(wanted)
    try:
        found = located(service, wanted, reader)
        for number in numbers:
            found.of(number)
        service.trail.giving(caller, [wanted])
        read = _given_frames(service, reader, found, numbers, given, wanted.transfer_syntax_uid)
        if given.offer.is_multipart:
            part = {"Content-Type": given.content_type}
            first = next(read)  # what cannot be given is told by the status
            return answers.multipart(
                given.offer.media_type, (({**part}, [each]) for each in _chained(first, read)), headers,
                more=f"; transfer-syntax={given.transfer_syntax_uid}",
            )  # fmt: skip
        if len(numbers) > 1:
            raise NotAcceptable("Several frames are given as multipart/related.")
        content = next(read)
        read.close()
        return Response(content, headers={**answers.HEADERS, **headers, "Content-Type": given.content_type})
    except BaseException:
        reader.close()
        raise


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def located(service: Service, wanted: Wanted, reader: Reader) -> Frames:
    """Where an object's frames lie."""
    found = service.frames.get(wanted.object_key)
    if found is None:
        found = frames_of(describe(reader.window, reader.transfer_syntax_uid), reader.window)
        service.frames.put(wanted.object_key, found)
    return found


def given_as(stored: str, asked: Iterable[Asked]) -> Given:
    """How an object's frames are given to who accepts this. Raise NotAcceptable.

    `*/*` and transfer-syntax=* take what is stored. application/octet-stream without a transfer syntax is uncompressed.
    """
    is_native = stored in codec.NATIVE
    plain = Given(Offer(OCTETS, True), EXPLICIT_VR_LITTLE_ENDIAN, not is_native)
    as_stored = plain if is_native else Given(Offer(MEDIA_TYPES.get(stored, OCTETS), True), stored, False)
    may_decode = is_native or codec.may_become(stored, EXPLICIT_VR_LITTLE_ENDIAN)
    for each in asked:
        for single in (False, True):
            for one in (as_stored, plain):
                found = Given(Offer(one.offer.media_type, not single), one.transfer_syntax_uid, one.is_decoded)
                if _fits(each, found, stored) and (may_decode or not found.is_decoded):
                    return found
    names = {f'multipart/related; type="{each.offer.media_type}"' for each in (plain, as_stored)}
    raise NotAcceptable(f"The frames cannot be given as what was asked for. There are: {', '.join(sorted(names))}.")


def _fits(asked: Asked, given: Given, stored: str) -> bool:
    if asked.transfer_syntax == "*":  # any: as it is stored, whatever its media type is said to be
        is_stored = not given.is_decoded
        return is_stored and (asked.is_multipart == given.offer.is_multipart) and _is_of(asked, given)
    if not asked.fits(given.offer):
        return False
    return (
        not asked.transfer_syntax
        or asked.transfer_syntax == given.transfer_syntax_uid
        or (given.offer.media_type == OCTETS and asked.transfer_syntax == stored and not given.is_decoded)
    )


def _is_of(asked: Asked, given: Given) -> bool:
    # `type="application/octet-stream"; transfer-syntax=*` is what viewers send for "as it is".
    return asked.fits(given.offer) or asked.media_type == OCTETS


def _given_frames(
    service: Service, reader: Reader, found: Frames, numbers: list[int], given: Given, stored: str
) -> Generator[bytes]:
    with closing(reader):
        for number in numbers:
            frame = read_frame(reader, found, number)
            if given.is_decoded:
                with service.decoding:
                    raw = stored in codec.LOSSLESS
                    frame = decode_frame(frame, stored, found.pixel_module, raw).tobytes()
            yield frame


def read_frame(reader: Reader, found: Frames, number: int) -> bytes:
    """A frame's bytes as they are stored, little endian. Raise NotFound, or CannotUnderstand for one that is too large
    for the memory."""
    pieces = found.of(number)
    if sum(size for _at, size in pieces) > reader.size_bytes_max:
        raise CannotUnderstand("The frame is too large to be given alone. Retrieve the object.")
    frame = b"".join(reader.window.read_at(at, size) for at, size in pieces)
    word = found.located.word_size_bytes
    return swapped(frame, word) if word > 1 else frame
