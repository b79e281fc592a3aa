"""Rendered resources and thumbnails (PS3.18 10.4.1.1.4, 10.4.1.1.6): a frame as JPEG, PNG or GIF."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from pydicom.dataset import Dataset
from starlette.requests import Request
from starlette.responses import Response

from pacs.archive.metadata import Reader, etag_of
from pacs.archive.retrieve import Wanted
from pacs.errors import NotAcceptable, UsageError
from pacs.model.dicom_json import Described, Json, describe
from pacs.model.frames import frames_of
from pacs.model.rendering import EDGE_MAX, FORMATS, Viewport, Window, decode_frame, encode, render
from pacs.web import answers
from pacs.web.frames import frame_numbers, read_frame
from pacs.web.media import Offer, negotiate
from pacs.web.service import Service, tag_of

THUMBNAIL_EDGE = 200
_OFFERS = tuple(Offer(each) for each in FORMATS)
#: Groups and elements that say how pixels become gray: of the object, and of its functional groups.
_PRESENTATION = ("0028", "2050")
_SHARED, _PER_FRAME = "52009229", "52009230"
#: Pixel Value Transformation Sequence, Frame VOI LUT Sequence.
_MACROS = ("00289145", "00289132")


def rendered(service: Service, request: Request) -> Response:
    """An instance, or one of its frames, as a picture."""
    window, viewport, quality = read_parameters(request.query_params)
    return _answer(service, request, window, viewport, quality, [])


def thumbnail(service: Service, request: Request) -> Response:
    """A small picture of a study, a series, an instance or a frame: of its middle."""
    _window, viewport, _quality = read_parameters(request.query_params)
    if viewport is None:
        viewport = Viewport(THUMBNAIL_EDGE, THUMBNAIL_EDGE)
    return _answer(service, request, None, viewport, 80, ["thumbnail"])


def _answer(
    service: Service, request: Request, window: Window | None, viewport: Viewport | None, quality: int, parts: list[str]
) -> Response:
    caller = service.access.caller(request, "read")
    objects = service.wanted(request)
    wanted = objects[len(objects) // 2]
    offer, _asked = negotiate(request, _OFFERS)
    numbers = frame_numbers(request.path_params["frames"]) if "frames" in request.path_params else [0]
    if len(numbers) > 1:
        raise NotAcceptable("One frame is rendered at a time.")
    etag = etag_of(
        "rendered", tag_of(wanted), offer.media_type, str(window), str(viewport), str(quality), str(numbers), *parts
    )
    headers = {**answers.HEADERS, "ETag": f'"{etag}"'}
    if request.query_params.get("annotation"):
        headers["Warning"] = '299 pacs "Annotations are not drawn into the picture"'
    if answers.is_known(request, etag):
        return answers.empty(304, headers)
    service.trail.giving(caller, [wanted])
    content = picture(service, wanted, numbers[0], offer.media_type, window, viewport, quality)
    return Response(content, headers=headers, media_type=offer.media_type)


def picture(
    service: Service, wanted: Wanted, number: int, media_type: str, window: Window | None, viewport: Viewport | None,
    quality: int,
) -> bytes:  # fmt: skip
    """A frame as a picture's file; number 0 is the one in the middle."""
    with service.decoding, closing(service.reader(wanted)) as reader:
        described = describe(reader.window, reader.transfer_syntax_uid)
        found = frames_of(described, reader.window)
        number = number or (len(found.pieces) + 1) // 2
        frame = read_frame(reader, found, number)
        _require_small(found.pixel_module, service.transcoding.size_bytes_max)
        pixels = decode_frame(frame, reader.transfer_syntax_uid, found.pixel_module, raw=False)
        return encode(render(pixels, presentation(described, reader, number), window, viewport), media_type, quality)


def _require_small(module: Mapping[str, Any], size_bytes_max: int) -> None:
    size = int(module.get("Rows", 0)) * int(module.get("Columns", 0)) * int(module.get("SamplesPerPixel", 1))
    if size * 8 > size_bytes_max:  # as numbers of 8 bytes, while it is windowed
        raise NotAcceptable("The frame is too large to be rendered. Retrieve it, or raise transcode_size_bytes_max.")


def presentation(described: Described, reader: Reader, number: int) -> Dataset:
    """What an object says of its pixels and their values, for one of its frames."""
    found: Json = {tag: element for tag, element in described.json.items() if tag[:4] in _PRESENTATION}
    for tag, item in ((_SHARED, 0), (_PER_FRAME, number - 1)):
        items = described.json.get(tag, {}).get("Value", [])
        for macro in _MACROS if item < len(items) else ():
            values = items[item].get(macro, {}).get("Value") or [{}]
            found |= values[0]

    def bulk(_tag: str, _vr: str, uri: str) -> bytes:
        located = described.bulk[uri]
        return reader.window.take(located.offset, located.length)

    return Dataset.from_json(found, bulk_data_uri_handler=bulk)


def read_parameters(given: Mapping[str, str]) -> tuple[Window | None, Viewport | None, int]:
    """Window, viewport and quality of a URL's parameters (PS3.18 8.3.5.1). Raise UsageError."""
    window = None
    if "window" in given:
        parts = given["window"].split(",")
        if len(parts) not in (2, 3):
            raise UsageError("A window is center,width or center,width,function.")
        names = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
        function = names.get(parts[2].lower(), parts[2].upper()) if len(parts) == 3 else "LINEAR"
        window = Window(number_of(parts[0]), number_of(parts[1]), function)
    viewport = _viewport(given["viewport"].split(",")) if "viewport" in given else None
    quality = int(number_of(given.get("quality", "90")))
    if not 1 <= quality <= 100:
        raise UsageError("A quality is 1 to 100.")
    return window, viewport, quality


def _viewport(parts: list[str]) -> Viewport:
    if len(parts) not in (2, 6):
        raise UsageError("A viewport is width,height or width,height,x,y,width,height.")
    width, height = (int(number_of(each)) if each else None for each in parts[:2])
    for edge in (width, height):
        if edge is not None and not 1 <= edge <= EDGE_MAX:
            raise UsageError(f"A viewport's edge is 1 to {EDGE_MAX} pixels.")
    if len(parts) == 2:
        return Viewport(width, height)
    x, y, region_width, region_height = (number_of(each) for each in parts[2:])
    return Viewport(width, height, (x, y, region_width, region_height))


def number_of(text: str) -> float:
    """A number of a URL. Raise UsageError."""
    try:
        found = float(text)
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no number.") from None
    if not abs(found) < 1e12:
        raise UsageError(f"{text[:40]!r} is no number that can be.")
    return found
