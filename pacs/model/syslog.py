"""Messages of syslog (RFC 5424), and their frames (RFC 6587 3.4.1, RFC 5425 4.3). Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum

#: Facility 3, system daemons (RFC 5424 6.2.1).
DAEMON = 3
#: Private enterprise number for examples and documentation (RFC 5612): this product has none of its own.
ENTERPRISE = 32473
_NAME = re.compile(r"[^!-~]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
#: What every receiver must take (RFC 5425 4.3.1: 2,048 octets).
_TEXT_BYTES_MAX = 1200


class Level(IntEnum):
    """Severities (RFC 5424 6.2.1)."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFORMATIONAL = 6


def message(
    level: Level, at: datetime, host: str, kind: str, text: str, values: Mapping[str, str], facility: int = DAEMON
) -> bytes:
    """One message, without a line's end. kind: the MSGID; values: the structured data.

    Control characters are blanks, so that nobody can forge a second message.
    """
    when = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    data = " ".join(f'{_name(name)}="{_escaped(value)}"' for name, value in values.items())
    head = f"<{facility * 8 + level}>1 {when} {_name(host, 255)} pacs {os.getpid()} {_name(kind)} "
    said = _cut(_CONTROL.sub(" ", text))
    return f"{head}[pacs@{ENTERPRISE} {data}] ".encode("ascii", "replace") + b"\xef\xbb\xbf" + said


def framed(one: bytes) -> bytes:
    """A message on a stream: its length in octets goes before it."""
    return b"%d %s" % (len(one), one)


def _name(text: str, length: int = 32) -> str:
    return _NAME.sub("_", text.replace('"', "_").replace("=", "_").replace("]", "_"))[:length] or "-"


def _escaped(text: str) -> str:
    plain = _CONTROL.sub(" ", text).encode("ascii", "replace").decode()
    return re.sub(r'(["\\\]])', r"\\\1", plain)


def _cut(text: str) -> bytes:
    return text.encode()[:_TEXT_BYTES_MAX].decode("utf-8", "ignore").encode()
