"""Which media type is given: what a request accepts (RFC 9110 12.5.1, PS3.18 8.7) against what there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.requests import Request

from pacs.errors import NotAcceptable

DICOM, JSON, XML = "application/dicom", "application/dicom+json", "application/dicom+xml"
OCTETS = "application/octet-stream"
_MULTIPART = "multipart/related"
_ACCEPT_LENGTH_MAX = 4096
_PART = re.compile(r'(?:[^,;"]|"(?:[^"\\]|\\.)*")+|[,;]')


@dataclass(frozen=True)
class Asked:
    """A media range that is accepted. transfer_syntax: a UID, `*` for any, or empty where none is said."""

    media_type: str
    is_multipart: bool
    transfer_syntax: str = ""
    weight: float = 1.0
    parameters: dict[str, str] = field(default_factory=dict, compare=False)

    def fits(self, offer: Offer) -> bool:
        """Whether an offer is one of these."""
        if self.media_type == "*/*" and not self.is_multipart:
            return True
        if self.is_multipart != offer.is_multipart:
            return False
        kind, _, name = self.media_type.partition("/")
        offered = offer.media_type.partition("/")
        return self.media_type == "*/*" or (kind == offered[0] and name in ("*", offered[2]))


@dataclass(frozen=True)
class Offer:
    """What can be given: a media type, alone or as parts of multipart/related."""

    media_type: str
    is_multipart: bool = False


def parsed(value: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters, both in lower case but for the parameters' values."""
    parts = split(value, ";")
    parameters = {}
    for part in parts[1:]:
        name, _, given = part.partition("=")
        parameters[name.strip().lower()] = given.strip().strip('"')
    return parts[0].strip().lower(), parameters


def split(value: str, separator: str) -> list[str]:
    """A header's value at its separators, but not inside of quotes."""
    found, current = [], ""
    for part in _PART.findall(value):
        if part == separator:
            found.append(current)
            current = ""
        else:
            current += part
    return [*found, current]


def asked_by(request: Request) -> list[Asked]:
    """What a request accepts, the best first. The parameter `accept` stands before the header (PS3.18 8.3.3.1)."""
    values = request.query_params.getlist("accept") or [request.headers.get("accept") or "*/*"]
    found = [_asked(each) for each in split(",".join(values)[:_ACCEPT_LENGTH_MAX], ",") if each.strip()]
    return sorted((each for each in found if each.weight > 0), key=lambda each: -each.weight)


def _asked(value: str) -> Asked:
    media_type, parameters = parsed(value)
    try:
        weight = float(parameters.pop("q", "1"))
    except ValueError:
        weight = 0.0
    is_multipart = media_type == _MULTIPART
    if is_multipart:
        media_type = parameters.pop("type", "*/*").lower()
    return Asked(media_type, is_multipart, parameters.pop("transfer-syntax", ""), weight, parameters)


def negotiate(request: Request, offers: Sequence[Offer]) -> tuple[Offer, Asked]:
    """The offer that a request likes best, and what it said. Raise NotAcceptable if it likes none."""
    for asked in asked_by(request):
        for offer in offers:
            if asked.fits(offer):
                return offer, asked
    names = ", ".join(f'multipart/related; type="{o.media_type}"' if o.is_multipart else o.media_type for o in offers)
    raise NotAcceptable(f"None of the media types that were asked for can be given. There are: {names}.")
