"""Answers of DICOMweb: DICOM JSON and XML, multipart/related, problems (RFC 9457), and the headers of all of them."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pacs.errors import PacsError, TryAgainLater, Unauthenticated
from pacs.model.native_xml import native_xml
from pacs.web.media import JSON, XML, Offer

log = logging.getLogger(__name__)

#: Of a patient: nobody keeps it for others, and who keeps it asks whether it is still so.
HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Authorization",
    "X-Content-Type-Options": "nosniff",
}
DATA_SETS = (Offer(JSON), Offer("application/json"), Offer(XML, is_multipart=True))

#: A part: its headers, and its bytes.
Part = tuple[Mapping[str, str], Iterable[bytes]]


def problem(error: PacsError, status: int | None = None) -> Response:
    """An error as application/problem+json. Its message says what to do, and holds no patient's data."""
    status = status or error.http
    headers = dict(HEADERS)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="pacs"'  # no Basic: a browser would remember and send it unasked
    if isinstance(error, TryAgainLater):
        headers["Retry-After"] = "10"
    title = (type(error).__doc__ or "").strip().partition(".")[0]
    content = {"type": "about:blank", "title": title, "status": status, "detail": str(error)}
    return Response(json.dumps(content), status, headers, "application/problem+json")


def empty(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """An answer without a body."""
    return Response(status_code=status, headers={**HEADERS, **(headers or {})})


def data_sets(
    offer: Offer, found: Sequence[dict[str, Any]], headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    """Data sets of DICOM JSON in the media type that was chosen."""
    headers = {**HEADERS, **(headers or {})}
    if offer.media_type == XML:
        return multipart(XML, [({"Content-Type": XML}, [native_xml(each)]) for each in found], headers, status)
    content = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(content, status, headers, offer.media_type)


def multipart(
    media_type: str, parts: Iterable[Part], headers: Mapping[str, str] | None = None, status: int = 200, more: str = ""
) -> Response:
    """multipart/related (RFC 2387) of parts that are made as they are sent. What fails in the middle cuts it off."""
    boundary = f"pacs-{secrets.token_hex(16)}"
    content_type = f'multipart/related; type="{media_type}"; boundary={boundary}{more}'
    return StreamingResponse(
        _joined(parts, boundary), status, {**HEADERS, **(headers or {}), "Content-Type": content_type}
    )


def _joined(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    for headers, content in parts:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        start = f"--{boundary}\r\n{lines}\r\n".encode()
        for piece in content:
            yield start + piece if start else bytes(piece)
            start = b""
        yield start + b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def is_known(request: Request, etag: str) -> bool:
    """Whether the asker has what this entity tag stands for (RFC 9110 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    return any(each.strip().removeprefix("W/") in (f'"{etag}"', "*") for each in given.split(","))
