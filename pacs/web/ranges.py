"""The range of bytes that a request asks for (RFC 9110 14.2): one, as viewers and browsers ask."""

from __future__ import annotations

import re

from starlette.requests import Request

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


def requested_range(request: Request, size_bytes: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last; None for all of it, as for several ranges or what is none. An empty
    range is one that there is not."""
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last bytes
        return max(0, size_bytes - int(found[2])), size_bytes
    first, last = int(found[1]), int(found[2] or size_bytes - 1)
    if last < first and found[2]:
        return None
    return first, min(last + 1, size_bytes)
