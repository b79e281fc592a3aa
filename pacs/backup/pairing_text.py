"""Texts that a person carries from one node to another: what a node says of itself, in one line that can be copied.

Nothing in one is secret; a check sum finds a text that was not copied whole.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from pacs.errors import UsageError


def packed(prefix: str, values: dict[str, Any]) -> str:
    """The text of some values. prefix: what kind of a text it is."""
    content = zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 9)
    return prefix + base64.urlsafe_b64encode(zlib.crc32(content).to_bytes(4, "big") + content).decode()


def unpacked(prefix: str, text: str) -> dict[str, Any]:
    """The values of such a text, however it was broken into lines. Raise UsageError if it is none, or not whole."""
    words = "".join(text.split())
    try:
        if not words.startswith(prefix):
            raise ValueError("its beginning")
        content = base64.urlsafe_b64decode(words.removeprefix(prefix))
        if zlib.crc32(content[4:]).to_bytes(4, "big") != content[:4]:
            raise ValueError("its check sum")
        found = json.loads(zlib.decompress(content[4:]))
        if not isinstance(found, dict):
            raise ValueError("its content")
    except (ValueError, zlib.error) as error:
        raise UsageError(
            f"This is no pairing text, or not all of it ({error}). Copy it whole, from {prefix} to its end."
        ) from None
    return found
