"""What there is, told to programs (PS3.18 8.9): as WADL, or as JSON of the same."""

from __future__ import annotations

import json
from xml.sax.saxutils import escape, quoteattr

from starlette.requests import Request
from starlette.responses import Response

from pacs.model.rendering import FORMATS
from pacs.web import answers
from pacs.web.media import DICOM, JSON, OCTETS, XML, Offer, negotiate
from pacs.web.service import Service

_WADL = "application/vnd.sun.wadl+xml"


def resources() -> list[dict[str, object]]:
    """Every resource: its path, method, what it is, and the media types that it gives or takes."""
    from pacs.web.dicomweb import RETRIEVES, SEARCHES, STORES  # here, as that module has the route to this one

    related = 'multipart/related; type="{}"'
    data_sets = [JSON, related.format(XML)]
    found: list[dict[str, object]] = [
        {"path": path, "method": "GET", "name": f"Search, level {level.name}", "types": data_sets}
        for path, level in SEARCHES.items()
    ]
    kinds = {
        "objects": [related.format(DICOM), DICOM], "metadata": data_sets, "frames": [related.format(OCTETS), OCTETS],
        "bulk_data": [related.format(OCTETS), OCTETS], "rendered": list(FORMATS), "thumbnail": list(FORMATS),
    }  # fmt: skip
    found += [
        {"path": path, "method": "GET", "name": f"Retrieve, {answer.__name__.replace('_', ' ')}",
         "types": kinds[answer.__name__]}
        for path, answer in RETRIEVES.items()
    ]  # fmt: skip
    found += [
        {"path": path, "method": "POST", "name": "Store", "types": [related.format(DICOM), related.format(JSON)]}
        for path in STORES
    ]
    return found


def answer(service: Service, request: Request) -> Response:
    """The capabilities."""
    service.access.caller(request, "read")
    offer, _asked = negotiate(request, (Offer(_WADL), Offer("application/json"), Offer(JSON)))
    base = service.base(request)
    if offer.media_type == _WADL:
        return Response(_wadl(base), headers=answers.HEADERS, media_type=_WADL)
    content = json.dumps({"base": base, "resources": resources()})
    return Response(content, headers=answers.HEADERS, media_type=offer.media_type)


def _wadl(base: str) -> str:
    parts = []
    for each in resources():
        types = [str(found) for found in each["types"]] if isinstance(each["types"], list) else []
        element = "request" if each["method"] == "POST" else "response"
        inner = "".join(f"<representation mediaType={quoteattr(found)}/>" for found in types)
        parts.append(
            f"<resource path={quoteattr(str(each['path']).removeprefix('/').replace(':path', ''))}>"
            f'<method name="{each["method"]}"><doc>{escape(str(each["name"]))}</doc><{element}>{inner}</{element}>'
            "</method></resource>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><application xmlns="http://wadl.dev.java.net/2009/02">'
        f"<resources base={quoteattr(base + '/')}>{''.join(parts)}</resources></application>"
    )
