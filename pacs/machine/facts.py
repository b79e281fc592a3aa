"""What machine this is: versions, processors, memory, mounts and disks, with nothing that a person wrote on them."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from pacs import __version__
from pacs.machine.commands import output
from pacs.model.redaction import Redactor
from pacs.storage.mounts import mounts

_LIBRARIES = ("pydicom", "pynetdicom", "numpy", "psycopg", "cryptography", "paramiko", "starlette", "boto3", "typer")
_MEMORY = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "Dirty")
_OPTIONS = frozenset(
    (
        "rw", "ro", "hard", "soft", "sync", "async", "relatime", "noatime", "nosuid", "nodev", "noexec", "proto=tcp",
        "proto=udp", "seal", "sec=sys", "sec=krb5",
    )
)  # fmt: skip
_FILE_SYSTEM = re.compile(r"[a-z0-9._-]{1,16}")


def versions() -> dict[str, Any]:
    """Versions of this program, its parts and the system; processors and memory."""
    found: dict[str, Any] = {"pacs": __version__, "python": platform.python_version(), "machine": platform.machine()}
    found["kernel"] = platform.release()
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    found["system"] = {name: system.get(name, "") for name in ("ID", "VERSION_ID", "IMAGE_VERSION")}
    found["libraries"] = {name: _version(name) for name in _LIBRARIES}
    found["processors"], found["memory_kib"] = os.cpu_count(), _memory_kib()
    return found


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _memory_kib() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[0].rstrip(":") in _MEMORY}


def mounted(redactor: Redactor) -> list[dict[str, Any]]:
    """The file systems that a volume may be on, and what is below /srv."""
    found = []
    for mount in mounts():
        if mount.kind is None and not mount.mount_point.startswith("/srv"):
            continue
        found.append(
            {
                "at": redactor.text(mount.mount_point),
                "source": redactor.text(mount.source),
                "file_system": mount.file_system if _FILE_SYSTEM.fullmatch(mount.file_system) else "other",
                "options": sorted(mount.options & _OPTIONS),
                **_room_of(Path(mount.mount_point), mount.kind),
            }
        )
    return found


def _room_of(folder: Path, kind: str | None) -> dict[str, int]:
    if kind != "local":  # a call on a share that is dead never returns
        return {}
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return {}
    return {"size_bytes": usage.total, "free_bytes": usage.free}


def disks() -> Any:
    """Block devices without what a person wrote on them: no label, no serial number, no model."""
    return json.loads(output("lsblk", "--json", "--bytes", "-o", "NAME,SIZE,TYPE,FSTYPE,ROTA,RO"))
