"""Devices, changed by a person: the journal first, then the index."""

from __future__ import annotations

import re
from dataclasses import asdict

from pacs.errors import NotFound, UsageError
from pacs.index import devices as rows
from pacs.index.database import Database
from pacs.index.devices import Device
from pacs.settings import AE_TITLE
from pacs.storage.journal import Journal


def add_device(database: Database, journal: Journal, device: Device) -> None:
    """Make a device known. Raise UsageError if its title, port or name cannot be."""
    if len(device.ae_title) > 16 or not re.fullmatch(AE_TITLE, device.ae_title, re.ASCII):
        raise UsageError("An AE title is 1 to 16 characters, without backslash, no spaces around it. Correct it.")
    if not 1 <= device.port <= 65535:
        raise UsageError("A port is 1 to 65535. Correct it.")
    for text in (device.name, device.host):
        if not text.strip() or not text.isprintable():
            raise UsageError("A device has a name and a host, of printable characters. Give both.")
    rows.require_free(database, device)
    journal.append("device add", **asdict(device))
    rows.add_device(database, device)


def remove_device(database: Database, journal: Journal, name: str) -> None:
    """Forget a device: it can no longer associate. Its studies stay. Raise NotFound if there is none."""
    if name not in [device.name for device in rows.list_devices(database)]:
        raise NotFound(f"There is no device {name}. `pacs device list` shows them.")
    journal.append("device remove", name=name)
    rows.remove_device(database, name)
