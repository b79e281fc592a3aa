"""STOW-RS (PS3.18 10.5): objects come in over HTTP, and are safe when the answer says so.

The body is taken as it comes and handed on piece by piece, so that a request takes as little memory with 10 GB as with
one image. Some requests are taken at once; others wait, unread, before the door.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pacs.archive.receiving_session import ReceivingSession
from pacs.errors import CannotUnderstand, PacsError, TooLarge, TryAgainLater, UnsupportedMediaType, UsageError
from pacs.index import store as rows
from pacs.model.dicom_json import Json
from pacs.model.native_xml import native_xml
from pacs.model.uids import TRANSFER_SYNTAXES
from pacs.web import answers
from pacs.web.media import DICOM, JSON, XML, Offer, negotiate, parsed
from pacs.web.multipart import Parts, Sink, boundary_of
from pacs.web.service import UIDS, Service, path_uids
from pacs.web.storing import Stored, Storing
from pacs.web.storing_json import MetadataStoring

log = logging.getLogger(__name__)

#: What arrivals over the web are noted under, where an association has its calling AE title.
CALLING = "DICOMWEB"
_PIECE_SIZE_BYTES = 1 << 18


class Stow:
    """Takes requests of STOW-RS."""

    def __init__(self, service: Service, session: ReceivingSession) -> None:
        self.service, self.session = service, session
        self._turnstile = anyio.CapacityLimiter(service.settings.stow_at_once)

    async def __call__(self, request: Request) -> Response:
        """Store what a request brings."""
        caller = await run_in_threadpool(self.service.access.caller, request, "store")
        offer, _asked = negotiate(request, (Offer(JSON), Offer("application/json"), Offer(XML)))
        study = path_uids(request).get(UIDS["study"], "")
        taking = _Taking(self.service, self.session, request, study)
        taking.caller_name, taking.caller_address = caller.name, caller.address
        try:
            async with self._turnstile:
                problem = await self._take(request, taking)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(taking.close)
        return _answer(offer, taking.storing.results, problem, self.service.base(request))

    async def _take(self, request: Request, taking: _Taking) -> PacsError | None:
        """Take the body; return what ended it early. What was stored until then is stored."""
        limit, timeout_s = self.service.settings.stow_size_bytes_max, self.service.settings.network_timeout_s
        size, waiting = 0, bytearray()
        stream = request.stream()
        try:
            _require_size(request, limit)
            while True:
                with anyio.fail_after(timeout_s):
                    piece = await anext(stream, None)
                if piece is not None:
                    size += len(piece)
                    if size > limit:
                        raise TooLarge(f"A request has at most {limit} bytes. Send it in several.")
                    waiting += piece
                if piece is None or len(waiting) >= _PIECE_SIZE_BYTES:
                    await run_in_threadpool(partial(taking.write, bytes(waiting)))
                    waiting.clear()
                if piece is None:
                    await run_in_threadpool(taking.finish)
                    return None
        except TimeoutError:
            return UsageError(f"Nothing came for {timeout_s:g} s.")
        except ClientDisconnect:
            return UsageError("The sender went away.")
        except PacsError as error:
            return error


def _require_size(request: Request, limit: int) -> None:
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limit:
        raise TooLarge(f"A request has at most {limit} bytes. Send it in several.")


class _Taking:
    """A request that is being taken. For one thread at a time."""

    def __init__(self, service: Service, session: ReceivingSession, request: Request, study: str) -> None:
        self.service, self.session = service, session
        self.caller_name = self.caller_address = ""
        self._association: int | None = None
        syntaxes = frozenset((*TRANSFER_SYNTAXES, *service.settings.extra_transfer_syntaxes))
        self.storing = Storing(service.store, self._association_key, study, syntaxes)
        content_type = request.headers.get("content-type", "")
        media_type, parameters = parsed(content_type)
        kind = parameters.get("type", "").lower() if media_type == "multipart/related" else ""
        self._metadata: MetadataStoring | None = None
        if kind == DICOM:
            opens: Any = self._open_object
        elif kind == JSON:
            self._metadata = MetadataStoring(self.storing, service.settings.transcode_size_bytes_max)
            opens = self._metadata.open_sink
        else:
            raise UnsupportedMediaType(
                'A body is multipart/related; type="application/dicom", or with metadata type="application/dicom+json".'
            )
        self._parts = Parts(boundary_of(content_type)[0], opens)

    def _open_object(self, headers: dict[str, str]) -> Sink:
        media_type, _parameters = parsed(headers.get("content-type", DICOM))
        if media_type != DICOM:
            raise UnsupportedMediaType("Every part of such a body is application/dicom.")
        return self.storing.begin()

    def _association_key(self) -> int:
        if self._association is None:
            self._association = rows.open_association(
                self.service.database, self.session.key(), CALLING, self.caller_address, self.caller_name
            )
        return self._association

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if data:
            self._parts.write(data)

    def finish(self) -> None:
        """The body is whole."""
        self._parts.finish()
        if self._metadata is not None:
            self._metadata.run()

    def close(self) -> None:
        """Whatever came of it, it is over."""
        self._parts.abandon()
        if self._association is not None:
            try:
                rows.close_association(self.service.database, self._association)
            except PacsError as error:
                log.warning("a request's end is not noted: %s", error)


def _answer(offer: Offer, results: list[Stored], problem: PacsError | None, base: str) -> Response:
    stored = [each for each in results if each.error is None]
    failed = [each for each in results if each.error is not None]
    if problem is not None and not stored:
        return answers.problem(problem)
    if not results:
        return answers.problem(UsageError("The request has no objects."))
    status = 200 if not failed and problem is None else 202 if stored else 409
    headers = {}
    if not stored and all(isinstance(each.error, TryAgainLater) for each in failed):
        status, headers["Retry-After"] = 503, "10"
    return _described(offer, _response(stored, failed, problem, base), headers, status)


def _described(offer: Offer, response: Json, headers: dict[str, str], status: int) -> Response:
    if offer.media_type == XML:
        return Response(native_xml(response), status, {**answers.HEADERS, **headers}, XML)
    return Response(json.dumps(response), status, {**answers.HEADERS, **headers}, offer.media_type)


def _response(stored: list[Stored], failed: list[Stored], problem: PacsError | None, base: str) -> Json:
    """The Store Instances Response Module (PS3.18 I.2)."""
    found: Json = {}
    studies = {each.study_instance_uid for each in stored}
    if len(studies) == 1:
        found["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{studies.pop()}"]}
    named = [each for each in failed if each.sop_instance_uid]
    others = [each for each in failed if not each.sop_instance_uid]
    if named:
        found["00081198"] = {"vr": "SQ", "Value": [{**_reference(each), **_reason(each.status)} for each in named]}
    if stored:
        found["00081199"] = {"vr": "SQ", "Value": [{**_reference(each), **_url(each, base)} for each in stored]}
    unnamed = [_reason(each.status) for each in others]
    if problem is not None:
        unnamed.append(_reason(CannotUnderstand.status))
    if unnamed:
        found["0008119A"] = {"vr": "SQ", "Value": unnamed}
    return found


def _reference(each: Stored) -> Json:
    return {
        "00081150": {"vr": "UI", "Value": [each.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [each.sop_instance_uid]},
    }


def _reason(status: int) -> Json:
    return {"00081197": {"vr": "US", "Value": [status]}}


def _url(each: Stored, base: str) -> Json:
    url = f"{base}/studies/{each.study_instance_uid}/series/{each.series_instance_uid}"
    return {"00081190": {"vr": "UR", "Value": [f"{url}/instances/{each.sop_instance_uid}"]}}
