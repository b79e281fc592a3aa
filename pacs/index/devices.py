"""Queries about devices: the application entities that may talk to the archive, and where to send to."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from pacs.errors import NotFound, UsageError
from pacs.index.database import Database


@dataclass(frozen=True)
class Device:
    """A known DICOM application entity."""

    name: str
    ae_title: str
    host: str
    port: int


def list_devices(database: Database) -> list[Device]:
    """Every device, by name."""
    with database.transaction() as connection:
        rows = connection.execute("SELECT name, ae_title, host, port FROM device ORDER BY name").fetchall()
    return [Device(**row) for row in rows]


def device_by_ae_title(database: Database, ae_title: str) -> Device | None:
    """The device with an AE title (case-sensitive, PS3.8 9.3.2), if it is known."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT name, ae_title, host, port FROM device WHERE ae_title = %s", (ae_title,)
        ).fetchone()
    return Device(**row) if row else None


def require_free(database: Database, device: Device) -> None:
    """Raise UsageError if the device's name or AE title is taken."""
    for other in list_devices(database):
        if device.name == other.name:
            raise UsageError(f"There is a device {other.name} already. Remove it first, or take another name.")
        if device.ae_title == other.ae_title:
            raise UsageError(f"AE title {other.ae_title} belongs to device {other.name} already. Remove it first.")


def add_device(database: Database, device: Device) -> None:
    """Insert a device. Raise UsageError if its name or AE title is taken."""
    try:
        with database.transaction() as connection:
            connection.execute(
                "INSERT INTO device (name, ae_title, host, port) VALUES (%s, %s, %s, %s)",
                (device.name, device.ae_title, device.host, device.port),
            )
    except psycopg.errors.UniqueViolation:
        raise UsageError(f"Another device took the name or AE title of {device.name} just now.") from None


def remove_device(database: Database, name: str) -> None:
    """Delete a device. Raise NotFound if there is none of that name."""
    with database.transaction() as connection:
        if connection.execute("DELETE FROM device WHERE name = %s", (name,)).rowcount == 0:
            raise NotFound(f"There is no device {name}. `pacs device list` shows them.")
