"""WADO-URI (PS3.18 9): one object, as a file or as a picture, by parameters of the URL."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from pacs.archive.metadata import etag_of
from pacs.errors import NotAcceptable, UsageError
from pacs.model import codec
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.model.rendering import EDGE_MAX, FORMATS, Viewport, Window
from pacs.web import answers
from pacs.web.media import DICOM
from pacs.web.rendered import number_of, picture
from pacs.web.service import Service, tag_of
from pacs.web.wado import one_object

_UIDS = {"studyUID": "StudyInstanceUID", "seriesUID": "SeriesInstanceUID", "objectUID": "SOPInstanceUID"}
_REFUSED = ("anonymize", "annotation", "presentationUID", "presentationSeriesUID")


def retrieve(service: Service, request: Request) -> Response:
    """One object (PS3.18 9.4)."""
    caller = service.access.caller(request, "read")
    given = request.query_params
    if given.get("requestType") != "WADO":
        raise UsageError("requestType=WADO is missing.")
    missing = [name for name in _UIDS if not given.get(name)]
    if missing:
        raise UsageError(f"{', '.join(missing)} is missing.")
    refused = [name for name in _REFUSED if name in given]
    if refused:
        raise UsageError(f"{', '.join(refused)} is not supported. Leave it out.")
    wanted = service.objects({keyword: given[name] for name, keyword in _UIDS.items()})[0]
    types = [each.strip().lower() for each in given.get("contentType", "image/jpeg").split(",")]
    media_type = next((each for each in types if each in (DICOM, *FORMATS)), "")
    if not media_type:
        raise NotAcceptable(f"contentType is one of {', '.join((DICOM, *FORMATS))}.")
    headers = {"ETag": f'"{etag_of("uri", tag_of(wanted), media_type, str(given))}"'}
    service.trail.giving(caller, [wanted])
    if media_type == DICOM:
        return one_object(
            service, wanted, _target(wanted.transfer_syntax_uid, given.get("transferSyntax", "")), headers
        )
    window = None
    if "windowCenter" in given or "windowWidth" in given:
        window = Window(number_of(given.get("windowCenter", "")), number_of(given.get("windowWidth", "")))
    number = int(number_of(given.get("frameNumber", "1")))
    if number < 1:
        raise UsageError("frameNumber is a number from 1 on.")
    quality = int(number_of(given.get("imageQuality", "90")))
    if not 1 <= quality <= 100:
        raise UsageError("imageQuality is 1 to 100.")
    content = picture(service, wanted, number, media_type, window, _viewport(request), quality)
    return Response(content, headers={**answers.HEADERS, **headers}, media_type=media_type)


def _target(stored: str, asked: str) -> str:
    if asked in ("", stored):  # nothing said: Explicit VR Little Endian (PS3.18 9.1.2.2.3), where a codec leads there
        explicit = EXPLICIT_VR_LITTLE_ENDIAN
        return stored if asked or not codec.may_become(stored, explicit) else explicit
    if not codec.may_become(stored, asked):
        raise NotAcceptable("The object cannot be given in this transferSyntax. Leave it out.")
    return asked


def _viewport(request: Request) -> Viewport | None:
    given = request.query_params
    edges = [int(number_of(given[name])) if name in given else None for name in ("columns", "rows")]
    for edge in edges:
        if edge is not None and not 1 <= edge <= EDGE_MAX:
            raise UsageError(f"rows and columns are 1 to {EDGE_MAX} pixels.")
    if "region" in given:
        raise UsageError("region is not supported. Use viewport of WADO-RS.")
    return None if edges == [None, None] else Viewport(edges[0], edges[1])
