"""Queries about devices: the application entities that may talk to the archive, and where to send to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from pacs.errors import NotFound, UsageError
from pacs.index.database import Connection, Database, Row


@dataclass(frozen=True)
class Device:
    """A known DICOM application entity: where it is sent to, where it may call from, and its quirks."""

    name: str
    ae_title: str
    host: str
    port: int
    #: Networks (CIDR) that it may call from, beside its host.
    networks: tuple[str, ...] = ()
    #: Further AE titles that it may call with.
    aliases: tuple[str, ...] = ()
    #: AE titles that it may call this archive by, beside the archive's own.
    called_ae_titles: tuple[str, ...] = ()
    #: The Specific Character Set of its objects that say none; for the index only. Empty: the Standard's default.
    default_character_set: str = ""
    #: The largest PDU that is taken from it and sent to it [bytes]; None: the setting's.
    pdu_size_bytes_max: int | None = None
    #: Transfer syntaxes, best first, that are taken from it and sent to it before all others.
    transfer_syntaxes: tuple[str, ...] = ()
    #: SHA-256 of the certificate that it must show, calling or called, hexadecimal; None: any, or none.
    tls_certificate_sha256: str | None = None
    #: How many associations it may have at once; None: as many as there are.
    associations_max: int | None = None
    #: Whether we call it over TLS.
    tls: bool = False

    @property
    def ae_titles(self) -> tuple[str, ...]:
        """Every AE title that it may call with."""
        return (self.ae_title, *self.aliases)


_COLUMNS = tuple(field.name for field in fields(Device))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM device"


def _device(row: Row) -> Device:
    values: Row = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Device(**values)


def _values(device: Device) -> dict[str, Any]:
    values = {name: getattr(device, name) for name in _COLUMNS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def list_devices(database: Database) -> list[Device]:
    """Every device, by name."""
    with database.transaction() as connection:
        rows = connection.execute(f"{_SELECT} ORDER BY name".encode()).fetchall()
    return [_device(row) for row in rows]


def device_named(database: Database, name: str) -> Device:
    """The device of a name. Raise NotFound if there is none."""
    for device in list_devices(database):
        if device.name == name:
            return device
    raise NotFound(f"There is no device {name}. `pacs device list` shows them.")


def device_by_ae_title(database: Database, ae_title: str) -> Device | None:
    """The device with an AE title or alias (case-sensitive, PS3.8 9.3.2), if it is known."""
    with database.transaction() as connection:
        row = connection.execute(
            f"{_SELECT} WHERE ae_title = %(title)s OR %(title)s = ANY (aliases) LIMIT 1".encode(), {"title": ae_title}
        ).fetchone()
    return _device(row) if row else None


def require_free(database: Database, device: Device, instead_of: str | None = None) -> None:
    """Raise UsageError if a device's name or one of its AE titles is another's. The device `instead_of` is none."""
    with database.transaction() as connection:
        _require_free(connection, device, instead_of)


def _require_free(connection: Connection, device: Device, instead_of: str | None) -> None:
    for other in map(_device, connection.execute(_SELECT.encode()).fetchall()):
        if other.name == instead_of:
            continue
        if device.name == other.name:
            raise UsageError(f"There is a device {other.name} already. Remove it first, or take another name.")
        for title in device.ae_titles:
            if title in other.ae_titles:
                raise UsageError(
                    f"AE title {title} belongs to device {other.name} already. Remove it there first, or, if it is "
                    f"the same device elsewhere, add its network: `pacs device change {other.name} --network …`."
                )


def add_device(database: Database, device: Device) -> None:
    """Insert a device. Raise UsageError if its name or one of its AE titles is taken."""
    with database.transaction() as connection:
        # An alias may be another's AE title, which no unique index sees: one at a time.
        connection.execute("LOCK TABLE device IN SHARE ROW EXCLUSIVE MODE")
        _require_free(connection, device, None)
        places = ", ".join(f"%({name})s" for name in _COLUMNS)
        connection.execute(
            f"INSERT INTO device ({', '.join(_COLUMNS)}) VALUES ({places})".encode(),
            _values(device),
        )


def insert_devices(connection: Connection, known: Sequence[tuple[Device, datetime]]) -> None:
    """Insert devices that were known before, and since when."""
    columns = (*_COLUMNS, "created_at")
    places = ", ".join(f"%({name})s" for name in columns)
    for device, created_at in known:
        connection.execute(
            f"INSERT INTO device ({', '.join(columns)}) VALUES ({places})".encode(),
            {**_values(device), "created_at": created_at},
        )


def change_device(database: Database, device: Device) -> None:
    """Write all of a device anew. Raise NotFound if there is none of its name, UsageError if a title is taken."""
    with database.transaction() as connection:
        connection.execute("LOCK TABLE device IN SHARE ROW EXCLUSIVE MODE")
        _require_free(connection, device, device.name)
        assignments = ", ".join(f"{name} = %({name})s" for name in _COLUMNS)
        changed = connection.execute(f"UPDATE device SET {assignments} WHERE name = %(name)s".encode(), _values(device))
        if changed.rowcount == 0:
            raise NotFound(f"There is no device {device.name}. `pacs device list` shows them.")


def remove_device(database: Database, name: str) -> None:
    """Delete a device. Raise NotFound if there is none of that name."""
    with database.transaction() as connection:
        if connection.execute("DELETE FROM device WHERE name = %s", (name,)).rowcount == 0:
            raise NotFound(f"There is no device {name}. `pacs device list` shows them.")
