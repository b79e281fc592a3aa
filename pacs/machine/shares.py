"""Shares that are mounted at each start, on any system disk: NFS and SMB, named once with `pacs machine mount`.

What was named is on the state volume, a record each; from it a systemd mount unit is made in /run, at each start and
when it is named. So a share outlives a new system disk. A server that is away holds up nothing: its share is tried
again every minute.

    STATE/mounts/NAME.json   what is mounted, of root's
    STATE/mounts/NAME.smb    user, password and domain, as mount.cifs(8) reads them
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pacs.errors import DataTooNew, NotFound, UsageError, VolumeError
from pacs.machine import filesystem
from pacs.machine.commands import MachineError, run
from pacs.machine.disk import require_name
from pacs.storage import durable

if TYPE_CHECKING:
    from pacs.machine.storage import Places

log = logging.getLogger(__name__)

FORMAT = 1
FOLDER = "mounts"
#: What is safe for an archive (docs/operate/shares.md); an option that a person gives takes the place of its namesake.
_DEFAULTS: dict[str, tuple[str, ...]] = {
    "nfs4": ("vers=4.2", "hard", "sync", "noatime", "nosuid", "nodev", "noexec"),
    "cifs": ("vers=3.1.1", "seal", "hard", "cache=none", "uid=pacs", "gid=pacs", "file_mode=0640", "dir_mode=0750",
             "nosuid", "nodev", "noexec"),
}  # fmt: skip
_OPTION = re.compile(r"[a-z0-9_.]+(=[^,\s\\\x00-\x1f]*)?", re.ASCII)
_NFS_SOURCE = re.compile(r"[^\s/\\\x00-\x1f]+:/[^\\\x00-\x1f]*")
_SMB_SOURCE = re.compile(r"//[^\s/\\\x00-\x1f]+/[^\\\x00-\x1f]+")
_START_LIMIT_S = 60


@dataclass(frozen=True)
class Share:
    """A share: its name, under which it is mounted, the server's folder, and what was given of options."""

    name: str
    source: str
    options: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def type(self) -> Literal["nfs4", "cifs"]:
        """Its kind, as mount(8) calls it."""
        return "cifs" if self.source.startswith("//") else "nfs4"


def checked(name: str, source: str, options: Sequence[str]) -> Share:
    """A share as a person names it. Raise UsageError, with what to do, if it cannot be one."""
    require_name(name)
    if not (_NFS_SOURCE.fullmatch(source) or _SMB_SOURCE.fullmatch(source)):
        raise UsageError(f"{source!r} is no share. NFS is server:/folder, SMB is //server/share.")
    given = [each for words in options for each in words.split(",") if each]
    for each in given:
        if not _OPTION.fullmatch(each) or each.partition("=")[0] in ("credentials", "username", "password"):
            raise UsageError(
                f"{each.partition('=')[0]!r} is not taken as an option. Give user and password by --credentials-file."
            )
    return Share(name, source, tuple(given))


def unit_of(share: Share, places: Places) -> str:
    """The text of its systemd mount unit."""
    given = {each.partition("=")[0] for each in share.options}
    options = [each for each in _DEFAULTS[share.type] if each.partition("=")[0] not in given]
    if share.type == "cifs":
        options.append(f"credentials={_credentials(places, share.name)}")
    return (
        f"[Unit]\nDescription=PACS: share {share.name}\nWants=network-online.target\nAfter=network-online.target\n\n"
        f"[Mount]\nWhat={_plain(share.source)}\nWhere={places.volumes / share.name}\nType={share.type}\n"
        f"Options={_plain(','.join([*options, *share.options, '_netdev']))}\nTimeoutSec={_START_LIMIT_S}\n"
    )


def add(places: Places, share: Share, credentials: bytes | None = None) -> Path:
    """Mount a share, now and at each start; return where. Raise UsageError or MachineError; then all is as before."""
    where = places.volumes / share.name
    if _record(places, share.name).exists():
        raise UsageError(f"There is a share {share.name} already. `pacs machine unmount {share.name}` forgets it.")
    if filesystem.is_mounted(where) or (where.is_dir() and any(where.iterdir())):
        raise UsageError(f"{where} is in use. Take another name.")
    if (credentials is not None) != (share.type == "cifs"):
        raise UsageError("An SMB share needs --credentials-file (username=, password=), an NFS share has none.")
    folder = places.state / FOLDER
    durable.make_folders(folder)
    folder.chmod(0o700)
    try:
        if credentials is not None:
            durable.replace_file(_credentials(places, share.name), credentials, 0o600)
        durable.replace_file(_record(places, share.name), (json.dumps(asdict(share)) + "\n").encode(), 0o600)
        unit = _write_unit(places, share)
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "pacs-firewall.service", accept=range(256))  # it lets us call the server
        _start(unit)
    except BaseException:
        _forget(places, share.name)
        raise
    return where


def remove(places: Places, name: str) -> None:
    """Unmount a share and forget it. Raise NotFound if there is none, MachineError if it is in use."""
    if not _record(places, name).exists():
        raise NotFound(f"There is no share {name}. `pacs machine mounts` shows them.")
    where = places.volumes / name
    if filesystem.is_mounted(where):
        try:
            filesystem.unmount(where)
        except MachineError as error:
            raise MachineError(
                f"{where} is in use: retire its volume, or remove its repository, first. Nothing was changed. {error}"
            ) from error
    _forget(places, name)


def known(places: Places) -> list[Share]:
    """All shares, by name. Raise VolumeError if a record cannot be read, DataTooNew if a newer version wrote it."""
    return [_read(path) for path in sorted((places.state / FOLDER).glob("*.json"))]


def is_mounted(places: Places, share: Share) -> bool:
    """Whether a share is where it should be. Asks the kernel, never the share."""
    return filesystem.is_mounted(places.volumes / share.name)


def mount_known(places: Places) -> list[str]:
    """Have every share mounted that is not yet; nothing waits for it. Return notes of what is wrong with records."""
    notes, units = [], []
    for path in sorted((places.state / FOLDER).glob("*.json")):
        try:
            share = _read(path)
        except (VolumeError, DataTooNew) as error:
            notes.append(str(error))
            continue
        if not filesystem.is_mounted(places.volumes / share.name):
            units.append(_write_unit(places, share))
    if units:
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "--no-block", *units)
    return notes


def _start(unit: str) -> None:
    try:
        run("systemctl", "start", unit)
    except MachineError as error:
        said = run("journalctl", "-u", unit, "-n", "3", "-o", "cat", "--no-pager", accept=range(256)).stdout
        raise MachineError(
            f"The share cannot be mounted, and was not kept: {' '.join(said.split())[-300:] or error} "
            "Look at the server's exports, and at the way to it (`ping`, the server's firewall)."
        ) from error


def _write_unit(places: Places, share: Share) -> str:
    """Write its unit; return its name."""
    (places.volumes / share.name).mkdir(mode=0o755, exist_ok=True)
    unit = run("systemd-escape", "--path", "--suffix=mount", str(places.volumes / share.name)).stdout.strip()
    places.units.mkdir(parents=True, exist_ok=True)
    (places.units / unit).write_text(unit_of(share, places), "utf-8")
    return unit


def _forget(places: Places, name: str) -> None:
    unit = run("systemd-escape", "--path", "--suffix=mount", str(places.volumes / name)).stdout.strip()
    for path in (_record(places, name), _credentials(places, name), places.units / unit):
        path.unlink(missing_ok=True)
    durable.fsync_folder(places.state / FOLDER)
    run("systemctl", "daemon-reload")
    where = places.volumes / name
    if where.is_dir() and not filesystem.is_mounted(where):
        os.rmdir(where)  # noqa: PTH106 (it is empty: nothing is written below a mount point)


def _read(path: Path) -> Share:
    try:
        found = json.loads(path.read_text("utf-8"))
        if int(found["format"]) > FORMAT:
            raise DataTooNew(f"{path} is of a newer version. Boot the image that wrote it, or a newer one.")
        return checked(str(found["name"]), str(found["source"]), [str(each) for each in found["options"]])
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise VolumeError(f"{path} cannot be understood ({error}). Remove it, and name the share again.") from error


def _record(places: Places, name: str) -> Path:
    return places.state / FOLDER / f"{name}.json"


def _credentials(places: Places, name: str) -> Path:
    return places.state / FOLDER / f"{name}.smb"


def _plain(text: str) -> str:
    """A value of a unit's setting: systemd expands what follows a percent sign."""
    return text.replace("%", "%%")
