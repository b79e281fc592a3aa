"""WADO-RS: whole objects, metadata and bulk data (PS3.18 10.4).

A whole object in its stored transfer syntax is a file, which nginx sends itself where it can (`sent_by_proxy`); all
else is streamed from here, in pieces, so that memory does not grow with the objects.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pacs.archive.metadata import BASE, Instance, Reader, etag_of
from pacs.archive.outgoing import Outgoing
from pacs.archive.retrieve import Wanted
from pacs.errors import NotAcceptable, NotFound
from pacs.model import codec, part10
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.model.dicom_json import Located, describe
from pacs.model.native_xml import native_xml
from pacs.model.pieces import swapped
from pacs.web import answers
from pacs.web.media import DICOM, OCTETS, XML, Asked, Offer, negotiate
from pacs.web.ranges import requested_range
from pacs.web.service import UIDS, Service, internal_path, path_uids, tag_of

log = logging.getLogger(__name__)

#: The location of nginx that only an answer of ours leads to (roles/proxy).
INTERNAL = "/internal-objects"
_PIECE_SIZE_BYTES = 1 << 20


def objects(service: Service, request: Request) -> Response:
    """A study, a series or an instance: its objects."""
    caller = service.access.caller(request, "read")
    wanted = service.wanted(request)
    offers = [Offer(DICOM, is_multipart=True)]
    if "instance" in request.path_params:
        offers.append(Offer(DICOM))
    offer, asked = negotiate(request, offers)
    targets = [target_of(each, asked) for each in wanted]
    given = [(each, target) for each, target in zip(wanted, targets, strict=True) if target]
    if not given:
        raise NotAcceptable("None of the objects can be given in the transfer syntax that was asked for. Ask for `*`.")
    named = (f"{tag_of(each)} {target}" for each, target in given)
    etag = etag_of("objects", offer.media_type, str(offer.is_multipart), *named)
    headers = {"ETag": f'"{etag}"'}
    if answers.is_known(request, etag):
        return answers.empty(304, headers)
    service.trail.giving(caller, [each for each, _target in given])
    if len(given) < len(wanted):
        missing = len(wanted) - len(given)
        headers["Warning"] = f'299 pacs "{missing} objects cannot be given in the transfer syntax asked for"'
    if not offer.is_multipart:
        return one_object(service, *given[0], headers)
    first = service.opened(*given[0])  # what is not at hand is told by the status
    status = 200 if len(given) == len(wanted) else 206
    return answers.multipart(DICOM, _parts(service, first, given), headers, status)


def target_of(wanted: Wanted, asked: Asked) -> str:
    """The transfer syntax that an object is given in (PS3.18 8.7.3.5.2); empty if it cannot be in what was asked for.

    Who takes anything gets what is stored. Who names no transfer syntax gets Explicit VR Little Endian, or what is
    stored where no codec leads there.
    """
    stored = wanted.transfer_syntax_uid
    if asked.transfer_syntax == "*" or asked.media_type == "*/*" or asked.transfer_syntax == stored:
        return stored
    if asked.transfer_syntax:
        return asked.transfer_syntax if codec.may_become(stored, asked.transfer_syntax) else ""
    return EXPLICIT_VR_LITTLE_ENDIAN if codec.may_become(stored, EXPLICIT_VR_LITTLE_ENDIAN) else stored


def one_object(service: Service, wanted: Wanted, target: str, headers: dict[str, str]) -> Response:
    """One object as a file of PS3.10, alone."""
    headers = {
        **answers.HEADERS, **headers, "Content-Type": f"{DICOM}; transfer-syntax={target}",
        "Content-Disposition": f'attachment; filename="{wanted.sop_instance_uid}.dcm"',
    }  # fmt: skip
    path = sent_by_proxy(service, wanted, target)
    if path is not None:
        return Response(headers={**headers, "X-Accel-Redirect": path})
    outgoing = service.opened(wanted, target)
    start = _start(wanted, target)
    headers["Content-Length"] = str(len(start) + outgoing.size_bytes)
    return StreamingResponse(_content(outgoing, start), headers=headers)


def sent_by_proxy(service: Service, wanted: Wanted, target: str) -> str | None:
    """Where nginx finds the file that is the whole answer; None where it is to be sent from here: without nginx
    (`pacs dev`), for what is not on a disk of ours, and for what is not given as it is stored."""
    root = service.settings.accel_root
    if root is None or target != wanted.transfer_syntax_uid or service.retrieve.give_changes([wanted]):
        return None
    with closing(service.retrieve.open(wanted)) as stored:  # it is looked at: there, and this object's
        copy = stored.copy
    volume = service.retrieve.volumes.get(copy.volume_id)
    path = Path(volume.location) / copy.path
    if volume.promise.kind != "local" or not path.is_relative_to(root):
        return None
    return internal_path(f"{INTERNAL}/{path.relative_to(root)}")


def _start(wanted: Wanted, target: str) -> bytes:
    return part10.encode_file_meta(wanted.sop_class_uid, wanted.sop_instance_uid, target)


def _content(outgoing: Outgoing, start: bytes) -> Iterator[bytes]:
    with closing(outgoing):
        for piece in outgoing.pieces:
            yield start + piece if start else bytes(piece)  # a piece is overwritten by the next
            start = b""
        if start:
            yield start


def _parts(service: Service, first: Outgoing, given: Sequence[tuple[Wanted, str]]) -> Iterator[answers.Part]:
    opened: Outgoing | None = first
    try:
        for wanted, target in given:
            outgoing, opened = opened or service.opened(wanted, target), None
            headers = {"Content-Type": f"{DICOM}; transfer-syntax={target}"}
            yield headers, _content(outgoing, _start(wanted, target))
    except Exception as error:
        log.error("a study's sending was cut off: %s", error)
        raise
    finally:
        if opened is not None:
            opened.close()


def metadata(service: Service, request: Request) -> Response:
    """The metadata of a study, a series or an instance (PS3.18 10.4.1.1.2)."""
    caller = service.access.caller(request, "read")
    uids = path_uids(request)
    offer, _asked = negotiate(request, answers.DATA_SETS)
    study = service.metadata.of_study(uids[UIDS["study"]])
    instances = [each for each in study.instances if _is_below(each, uids)]
    if not instances:
        raise NotFound("There is no such study, series or instance.")
    base = service.base(request)
    etag = etag_of(study.fingerprint, offer.media_type, base, *uids.values())
    headers = {**answers.HEADERS, "ETag": f'"{etag}"'}
    if answers.is_known(request, etag):
        return answers.empty(304, headers)
    service.trail.describing(caller, [study.study_key])
    contents = [each.content.replace(f'"BulkDataURI":"{BASE}'.encode(), f'"BulkDataURI":"{base}'.encode())
                for each in instances]  # fmt: skip
    if offer.media_type == XML:
        parts = (({"Content-Type": XML}, [native_xml(json.loads(each))]) for each in contents)
        return answers.multipart(XML, parts, headers)
    return Response(b"[" + b",".join(contents) + b"]", headers=headers, media_type=offer.media_type)


def _is_below(instance: Instance, uids: dict[str, str]) -> bool:
    return uids.get(UIDS["series"], instance.series_instance_uid) == instance.series_instance_uid and (
        uids.get(UIDS["instance"], instance.sop_instance_uid) == instance.sop_instance_uid
    )


def bulk_data(service: Service, request: Request) -> Response:
    """A value that is not in the metadata, or a range of its bytes (PS3.18 10.4.1.1.5)."""
    caller = service.access.caller(request, "read")
    wanted = service.wanted(request)[0]
    path = request.path_params["path"].upper()
    reader = service.reader(wanted)
    try:
        located = describe(reader.window, reader.transfer_syntax_uid).bulk.get(path)
        if located is None:
            raise NotFound("There is no such bulk data: its URI stands in the metadata.")
        offer, _asked = negotiate(request, [Offer(OCTETS, is_multipart=True), Offer(OCTETS)])
        etag = etag_of("bulk", tag_of(wanted), path)
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if answers.is_known(request, etag):
            reader.close()
            return answers.empty(304, headers)
        if located.is_encapsulated:
            raise NotAcceptable("Encapsulated pixel data is given by its frames: …/frames/1")
        service.trail.giving(caller, [wanted])
        return _bulk_answer(request, reader, located, offer, headers)
    except BaseException:
        reader.close()
        raise


def _bulk_answer(request: Request, reader: Reader, located: Located, offer: Offer, headers: dict[str, str]) -> Response:
    if offer.is_multipart:
        part = {"Content-Type": OCTETS, "Content-Location": str(request.url.path)}
        return answers.multipart(OCTETS, [(part, _bulk_pieces(reader, located, 0, located.length))], headers)
    headers = {**answers.HEADERS, **headers, "Content-Type": OCTETS}
    wished = requested_range(request, located.length)
    if wished is None:
        headers["Content-Length"] = str(located.length)
        return StreamingResponse(_bulk_pieces(reader, located, 0, located.length), headers=headers)
    first, after = wished
    if first >= after:
        reader.close()
        return answers.empty(416, {"Content-Range": f"bytes */{located.length}"})
    headers |= {
        "Content-Length": str(after - first),
        "Content-Range": f"bytes {first}-{after - 1}/{located.length}",
    }
    return StreamingResponse(_bulk_pieces(reader, located, first, after), 206, headers)


def _bulk_pieces(reader: Reader, located: Located, first: int, after: int) -> Iterator[bytes]:
    """The bytes from first to before after, little endian whatever is stored."""
    word = located.word_size_bytes
    with closing(reader):
        at = first - first % word  # whole words are turned round
        while at < after:
            size = min(_PIECE_SIZE_BYTES, located.length - at)
            piece = reader.window.read_at(located.offset + at, size)
            if word > 1:
                piece = swapped(piece, word)
            yield piece[max(0, first - at) : after - at]
            at += size
