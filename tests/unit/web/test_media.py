"""Which media type is chosen."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from pacs.errors import NotAcceptable
from pacs.web.frames import given_as
from pacs.web.media import DICOM, JSON, XML, Offer, asked_by, negotiate

OFFERS = (Offer(JSON), Offer("application/json"), Offer(XML, is_multipart=True))
JPEG_LS, EXPLICIT, VIDEO = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.102"


def request(accept: str = "", query: str = "") -> Request:
    headers = [(b"accept", accept.encode())] if accept else []
    return Request({"type": "http", "method": "GET", "headers": headers, "query_string": query.encode()})


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/html, application/json;q=0.5, */*;q=0.1", "application/json"),
        (f'multipart/related; type="{XML}", {JSON};q=0.9', XML),
        (f"multipart/related; type={XML}", XML),
        ("multipart/related", XML),
        (f"{JSON};q=0, application/json", "application/json"),
    ],
)
def test_the_best_is_chosen(accept: str, chosen: str) -> None:
    assert negotiate(request(accept), OFFERS)[0].media_type == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", XML, '"', ";;;", f"{JSON};q=x", "," * 5000])
def test_none_fits(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        negotiate(request(accept), OFFERS)


def test_the_parameter_stands_before_the_header() -> None:
    assert negotiate(request(JSON, "accept=application/json"), OFFERS)[0].media_type == "application/json"


def test_a_transfer_syntax_is_read() -> None:
    found = asked_by(request(f'multipart/related; type="{DICOM}"; transfer-syntax={JPEG_LS}; q=0.3, {DICOM}'))
    assert [(each.is_multipart, each.transfer_syntax, each.weight) for each in found] == [
        (False, "", 1.0),
        (True, JPEG_LS, 0.3),
    ]


@pytest.mark.parametrize(
    ("stored", "accept", "media_type", "is_decoded"),
    [
        (JPEG_LS, "*/*", "image/jls", False),
        (JPEG_LS, 'multipart/related; type="application/octet-stream"', "application/octet-stream", True),
        (JPEG_LS, 'multipart/related; type="application/octet-stream"; transfer-syntax=*', "image/jls", False),
        (JPEG_LS, 'multipart/related; type="image/jls"', "image/jls", False),
        (JPEG_LS, "multipart/related; type=image/*", "image/jls", False),
        (EXPLICIT, 'multipart/related; type="image/jls", */*;q=0.1', "application/octet-stream", False),
        (VIDEO, "*/*", "video/mp4", False),
    ],
)
def test_frames(stored: str, accept: str, media_type: str, is_decoded: bool) -> None:
    found = given_as(stored, asked_by(request(accept)))
    assert (found.offer.media_type, found.is_decoded) == (media_type, is_decoded)


def test_video_is_not_decoded() -> None:
    with pytest.raises(NotAcceptable):
        given_as(VIDEO, asked_by(request('multipart/related; type="application/octet-stream"')))
