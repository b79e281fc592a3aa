"""The place that a person names for a new volume: a folder, a mounted share or a bucket; and the secrets of a bucket.

Secrets are kept in DATA/config/volumes/<name>.toml, mode 0600, and a certificate beside it; the index has neither.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacs.archive.known_volumes import secrets_of
from pacs.errors import UsageError
from pacs.index.volumes import REPOSITORY_TIER, KnownVolume
from pacs.storage import durable
from pacs.storage.kinds import Kind
from pacs.storage.mounts import Mount, mount_of, require_suitable
from pacs.storage.opening import PROMISES, Place

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
#: Names of the volumes that the settings name, and of the one that is no tier's.
_RESERVED = {"state", "tier1", "tier2", "tier3"}
#: Kinds that are no folder here.
AFAR = ("s3", "sftp")


@dataclass(frozen=True)
class Given:
    """What a person says of a place beside where it is."""

    options: Mapping[str, Any] = field(default_factory=dict)
    #: TOML with access_key_id and secret_access_key.
    credentials: bytes | None = field(default=None, repr=False)
    #: PEM: who signed the endpoint's certificate, if it is nobody whom everybody knows.
    ca_certificate: bytes | None = None
    #: Take a folder on the system's disk, or of no type that is known to keep its promises. For development.
    on_system_disk: bool = False


def wanted_volume(name: str, location: str, tier: int, given: Given) -> tuple[KnownVolume, Mount | None]:
    """The volume that is wanted, its id yet to come, and its mount if it is on one. Raise UsageError."""
    options = dict(given.options)
    mount = None
    if location.startswith("s3://"):
        wanted = KnownVolume("", name, tier, location.rstrip("/"), "s3", options)
        if given.credentials is None:
            raise UsageError("A bucket needs --credentials-file: access_key_id and secret_access_key, in TOML.")
        if given.ca_certificate is not None:
            options["ca_file"] = f"{name}.pem"
    elif location.startswith("sftp://"):
        wanted = _on_sftp(name, location, tier, given)
    else:
        if given.credentials is not None or given.ca_certificate is not None:
            raise UsageError("Credentials and certificates are for buckets: s3://bucket/prefix.")
        wanted, mount = _on_a_mount(name, location, tier, given)
    if tier == 1 and mount is not None and mount.why_it_may_not_receive:
        raise UsageError(mount.why_it_may_not_receive)
    if tier == 1 and not PROMISES[wanted.kind].may_receive:
        raise UsageError(f"Tier 1 receives, and a volume of kind {wanted.kind} does not. Add it to tier 2 or 3.")
    return wanted, mount


def _on_sftp(name: str, location: str, tier: int, given: Given) -> KnownVolume:
    from pacs.storage.sftp_client import require_options, require_server

    if tier != REPOSITORY_TIER:
        raise UsageError("A place on an SFTP server is for backups: `pacs backup repository add`.")
    require_server(location)
    require_options(given.options)
    if given.credentials is None:
        raise UsageError("An SFTP server needs --credentials-file: password or private_key, in TOML.")
    return KnownVolume("", name, tier, location.rstrip("/"), "sftp", dict(given.options))


def _on_a_mount(name: str, location: str, tier: int, given: Given) -> tuple[KnownVolume, Mount]:
    folder = Path(os.path.abspath(location))  # noqa: PTH100 (resolving would ask the share, which may hang)
    mount = mount_of(folder)
    if mount.kind not in ("nfs", "smb") and not given.options.get("any_file_system"):
        folder = folder.resolve()
        mount = mount_of(folder)
    kind: Kind
    if given.on_system_disk:
        kind = "local"
    elif given.options.get("any_file_system"):
        kind = mount.kind if mount.kind == "nfs" else "smb"
    else:
        kind = require_suitable(mount, folder)
    if given.options and kind == "local":
        raise UsageError(
            f"A folder on a disk has no options {', '.join(given.options)}. They are for shares and buckets."
        )
    options = {**given.options, "source": mount.source, "type": mount.file_system}
    return KnownVolume("", name, tier, str(folder), kind, options), mount


def place_of(data: Path, volume: KnownVolume) -> Place:
    """Where a volume is, with the file of its secrets."""
    return Place(volume.kind, volume.location, volume.options, secrets_of(data, volume))


@contextlib.contextmanager
def kept_secrets(data: Path, volume: KnownVolume, given: Given) -> Iterator[None]:
    """Keep what is secret of a volume that is added in the block; where the block fails it is removed again."""
    try:
        for path, content in (
            (secrets_of(data, volume), given.credentials),
            (_ca_file(data, volume), given.ca_certificate),
        ):
            if content is not None:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                durable.fsync_folder(path.parent.parent)
                durable.replace_file(path, content, mode=0o600)
        yield
    except BaseException:
        forget_secrets(data, volume)
        raise


def forget_secrets(data: Path, volume: KnownVolume) -> None:
    """Remove what was kept of a volume that is none any more."""
    for path in (secrets_of(data, volume), _ca_file(data, volume)):
        path.unlink(missing_ok=True)


def require_own_place(
    data: Path, wanted: KnownVolume, known: list[KnownVolume], mount: Mount | None, on_system_disk: bool
) -> list[str]:
    """Raise UsageError if its name or place is another's; return what is to be known about the place."""
    if not _NAME.fullmatch(wanted.name) or wanted.name in _RESERVED:
        raise UsageError("Its name is 1 to 32 small letters, digits and hyphens, and none of tier1 to tier3 and state.")
    if any(each.name == wanted.name for each in known):
        raise UsageError(f"There is a volume {wanted.name} already, maybe a retired one. Take another name.")
    if mount is None:
        _require_other_buckets(wanted, known)
        return []
    folder = Path(wanted.location)
    in_use = [each for each in known if each.state != "retired" and each.kind not in AFAR]
    for name, place in (("the data directory", data), *((each.name, Path(each.location)) for each in in_use)):
        if folder.is_relative_to(place) or place.is_relative_to(folder):
            raise UsageError(f"{folder} and {place} ({name}) are one inside the other. Take a folder of its own.")
    if not on_system_disk and (mount.mount_point == "/" or mount_of(data).source == mount.source):
        raise UsageError(
            f"{folder} is on the disk of the system or of the database: nothing of its own is mounted there. "
            "Mount the disk that is meant. For development there is --on-system-disk."
        )
    sharing = [each.name for each in in_use if mount_of(Path(each.location)).source == mount.source]
    return [f"It shares its disk with volume {each}: its room counts for both." for each in sharing]


def _require_other_buckets(wanted: KnownVolume, known: list[KnownVolume]) -> None:
    """Raise UsageError if a bucket's prefix is another volume's, or one is inside the other."""
    for each in known:
        if (
            each.kind == wanted.kind
            and each.state != "retired"
            and each.options.get("endpoint") == wanted.options.get("endpoint")
        ):
            ours, theirs = f"{wanted.location}/", f"{each.location}/"
            if ours.startswith(theirs) or theirs.startswith(ours):
                raise UsageError(f"{wanted.location} and {each.location} ({each.name}) are one inside the other.")


def _ca_file(data: Path, volume: KnownVolume) -> Path:
    return secrets_of(data, volume).with_suffix(".pem")
