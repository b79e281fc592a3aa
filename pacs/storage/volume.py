"""A volume and the identity file in its root.

A volume is a folder with `volume.json` in it, almost always the root of a file system of its own. Before anything is
written below it the identity file is read: a mount that is gone, came back empty or came back as another disk has
another file or none. The file is written once, durably, and never changed.

    {"format": 1, "appliance_id": "<uuid>", "volume_id": "<uuid>", "roles": ["tier1"], "created": "<ISO 8601>",
     "version": "<that wrote it: whoever does not know its format names it>"}
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from pacs import __version__, clock
from pacs.errors import DataTooNew, VolumeError, VolumeMissing
from pacs.storage import durable

FORMAT = 1
IDENTITY_FILE = "volume.json"
#: The appliances whose archive this one has gone on with, in the data directory: its volumes elsewhere are theirs.
FORMER_FILE = Path("config", "former-appliances.json")


@dataclass(frozen=True)
class VolumeIdentity:
    """What volume.json says. Ids are UUIDs in their canonical text form; roles are of state, tier1, tier2."""

    format: int
    appliance_id: str
    volume_id: str
    roles: tuple[str, ...]
    created: str
    version: str = ""


def read_identity(root: Path) -> VolumeIdentity:
    """The identity of the volume at root.

    Raise VolumeMissing if there is none, DataTooNew if a newer version wrote it, VolumeError if it cannot be read.
    """
    path = root / IDENTITY_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise VolumeMissing(
            f"There is no volume at {root}: {IDENTITY_FILE} is missing. Is its disk attached and mounted?"
        ) from None
    except OSError as error:
        raise VolumeError(f"{path} cannot be read ({error}). Check the disk below {root}.") from error
    return parse_identity(content, str(root))


def parse_identity(content: bytes, location: str) -> VolumeIdentity:
    """The identity that a volume's identity file holds; location is where the volume is, for messages.

    Raise DataTooNew if a newer version wrote it, VolumeError if it is none.
    """
    where = f"{location}/{IDENTITY_FILE}"
    try:
        found = json.loads(content)
    except ValueError as error:
        raise VolumeError(f"{where} cannot be read ({error}). Restore it from the backup.") from error
    number = found.get("format") if isinstance(found, dict) else None
    if not isinstance(number, int) or number < 1:
        raise VolumeError(f"{where} is not a volume's identity. Restore it from the backup.")
    if number > FORMAT:
        raise DataTooNew.of_format(f"The volume at {location}", found, FORMAT)
    try:
        roles = found["roles"]
        if not isinstance(roles, list) or not roles or not all(isinstance(role, str) for role in roles):
            raise ValueError("roles")
        return VolumeIdentity(
            format=number,
            appliance_id=str(uuid.UUID(str(found["appliance_id"]))),
            volume_id=str(uuid.UUID(str(found["volume_id"]))),
            roles=tuple(roles),
            created=str(found["created"]),
            version=str(found.get("version", "")),
        )
    except (KeyError, ValueError) as error:
        raise VolumeError(f"{where} is not a volume's identity ({error!r}). Restore it from the backup.") from error


def new_identity(
    roles: tuple[str, ...], appliance_id: str | None = None, volume_id: str | None = None
) -> VolumeIdentity:
    """The identity of a volume that is to be made. Ids that are not given are made."""
    return VolumeIdentity(
        format=FORMAT,
        appliance_id=appliance_id or str(uuid.uuid4()),
        volume_id=volume_id or str(uuid.uuid4()),
        roles=roles,
        created=clock.now().isoformat(timespec="seconds"),
        version=__version__,
    )


def identity_content(identity: VolumeIdentity) -> bytes:
    """What the identity file of such a volume holds."""
    return (json.dumps(asdict(identity), indent=1) + "\n").encode()


def create_identity(
    root: Path, roles: tuple[str, ...], appliance_id: str | None = None, volume_id: str | None = None
) -> VolumeIdentity:
    """Make root a volume: write its identity file durably and return it. Ids that are not given are made.

    Raise FileExistsError if root is a volume already.
    """
    identity = new_identity(roles, appliance_id, volume_id)
    durable.create_file(root / IDENTITY_FILE, identity_content(identity))
    return identity


def appliance_ids(data: Path) -> frozenset[str]:
    """The ids by which an instance's volumes may be known: its own, and those of the appliances whose archive was
    restored onto it. Raise VolumeError if they cannot be read."""
    return frozenset((read_identity(data).appliance_id, *former_appliances(data)))


def former_appliances(data: Path) -> list[str]:
    """The appliances whose archive this one has gone on with, the first of them first."""
    try:
        return [str(uuid.UUID(each)) for each in json.loads((data / FORMER_FILE).read_bytes())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise VolumeError(f"{data / FORMER_FILE} cannot be read ({error}). Restore it from the backup.") from error


def succeed(data: Path, appliance_id: str) -> None:
    """Note that this appliance goes on with another's archive: volumes with that id are its own from now on."""
    known = former_appliances(data)
    if appliance_id not in (*known, read_identity(data).appliance_id):
        durable.replace_file(data / FORMER_FILE, (json.dumps([*known, appliance_id]) + "\n").encode())
