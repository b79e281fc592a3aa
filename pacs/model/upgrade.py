"""What an upgrade file says of itself, and whether a node may take it. Pure: who reads and writes is elsewhere.

The file is a tar of three members: manifest.json, manifest.sig (Ed25519 over SIGNED and the manifest's bytes) and
root.zst. The last holds those pieces of a root slot, one after the other, that are not zeros; the manifest has the
place and the SHA-256 of each, so that what was written can be compared with what was signed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1
MANIFEST, SIGNATURE, PAYLOAD = "manifest.json", "manifest.sig", "root.zst"
#: What stands before the manifest in what is signed: a signature for this is none for anything else.
SIGNED = b"pacs upgrade 1\n"
PIECE_BYTES = 1 << 20
#: What stays free on the state's disk when a copy of the cluster was made [bytes].
SPARE_BYTES = 1 << 30


@dataclass(frozen=True)
class System:
    """A version, the newest migration of the index that it knows, and the PostgreSQL that it has."""

    version: str
    schema: int
    postgresql: int


@dataclass(frozen=True)
class Manifest:
    """What is in an upgrade file. `pieces`: (number, SHA-256 in hex) of each piece that is not all zeros, in order."""

    version: str
    schema: int
    postgresql: int
    built: str
    size_bytes: int
    payload_bytes: int
    payload_sha256: str
    pieces: tuple[tuple[int, str], ...]
    piece_bytes: int = PIECE_BYTES
    format: int = FORMAT

    @property
    def system(self) -> System:
        """What runs when it was applied."""
        return System(self.version, self.schema, self.postgresql)


@dataclass(frozen=True)
class Node:
    """What a manifest is compared with: the system whose data are here, the idle slot, and the room for a copy."""

    data: System
    slot_bytes: int
    cluster_bytes: int
    free_bytes: int


def encoded(manifest: Manifest) -> bytes:
    """The manifest as its file has it: the same for the same content."""
    return (json.dumps(asdict(manifest), sort_keys=True) + "\n").encode()


def decoded(content: bytes) -> Manifest:
    """The manifest in such bytes. Raise ValueError if they are none that this version understands."""
    values: Mapping[str, Any] = json.loads(content)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError("its format is not known here")
    try:
        known = {name: values[name] for name in Manifest.__dataclass_fields__}
        pieces = tuple((int(number), str(digest)) for number, digest in known.pop("pieces"))
        manifest = Manifest(pieces=pieces, **known)
        numbers = [number for number, _digest in pieces]
        if numbers != sorted(set(numbers)) or manifest.piece_bytes < 1 or manifest.size_bytes % manifest.piece_bytes:
            raise ValueError("its pieces are not in order")
        if numbers and not 0 <= numbers[0] <= numbers[-1] < manifest.size_bytes // manifest.piece_bytes:
            raise ValueError("its pieces do not fit into it")
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is incomplete ({error!r})") from error
    return manifest


def order_of(version: str) -> tuple[int, ...]:
    """What versions are sorted by: the numbers in them."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def needed_bytes(cluster_bytes: int) -> int:
    """The room that a copy of the cluster takes on the state's disk, with what is to stay free beside it."""
    return cluster_bytes + cluster_bytes // 20 + SPARE_BYTES


def problems(manifest: Manifest, node: Node, allow_older: bool = False, again: bool = False) -> list[str]:
    """Why a node may not take it, each with what to do next; empty if it may."""
    found = []
    data = node.data
    if manifest.schema < data.schema or manifest.postgresql < data.postgresql:
        found.append(newer_data(data, manifest.system))
    elif order_of(manifest.version) < order_of(data.version) and not allow_older:
        found.append(
            f"The file holds version {manifest.version}, older than {data.version} here. "
            "If that is meant, give --allow-older."
        )
    elif manifest.version == data.version and not again:
        found.append(
            f"The file holds version {manifest.version}, which runs here. To write it once more, give --again."
        )
    if manifest.postgresql > data.postgresql:
        found.append(
            f"The file has PostgreSQL {manifest.postgresql} only, the database here is of {data.postgresql}. Take a "
            "version that has both: its release notes say so."
        )
    if manifest.size_bytes > node.slot_bytes:
        found.append(
            f"The system takes {manifest.size_bytes >> 20} MiB, the idle slot of this system disk has "
            f"{node.slot_bytes >> 20} MiB. Replace the system disk by that of the new OVA (docs/operate/upgrade.md)."
        )
    if manifest.schema > data.schema and node.free_bytes < needed_bytes(node.cluster_bytes):
        found.append(
            f"The upgrade keeps a copy of the database ({node.cluster_bytes / 1e9:.1f} GB) on the state's disk, which "
            f"has {node.free_bytes / 1e9:.1f} GB free; it takes {needed_bytes(node.cluster_bytes) / 1e9:.1f} GB. "
            "Enlarge the disk in the hypervisor: its volume grows by itself."
        )
    return found


def newer_data(data: System, here: System) -> str:
    """That this version is too old for the data, and which one is not."""
    return (
        f"The data were last used by version {data.version} (schema {data.schema}, PostgreSQL {data.postgresql}); "
        f"version {here.version} knows schema {here.schema} and has PostgreSQL {here.postgresql}. Nothing was touched. "
        f"Use the image of version {data.version}, or a newer one."
    )


def problem_of_data(data: System, here: System) -> str:
    """Why a system may not start on these data; empty if it may."""
    return newer_data(data, here) if here.schema < data.schema or here.postgresql < data.postgresql else ""
