"""Messages of the audit log, looked at with the schema of PS3.15 A.5.1 (audit_message.rng)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxml import etree

_SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).with_name("audit_message.rng")))


def valid(message: bytes) -> Any:
    """A message that fits the schema, parsed; fails with what is wrong with it."""
    found = etree.fromstring(message)
    assert _SCHEMA.validate(found), f"{_SCHEMA.error_log}\n{message.decode()}"
    return found
