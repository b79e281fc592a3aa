"""The upgrade file: the finished system's root slot, packed piece by piece and signed. No second build, and no mount.

PACS_RELEASE_KEY   a file with the builder's private key (64 hex digits); without it the one in the builder's
                   ~/.config/pacs-appliance/release.key, which the first build makes
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

from packer.base.layout import MIB, ROOT_A_START_MIB, ROOT_SIZE_MIB
from packer.errors import BuildError
from packer.ova.package import member, sha256_of, tar_format
from packer.progress import run_logged, say
from pacs.model import upgrade
from pacs.model.upgrade import PIECE_BYTES, Manifest, System

LEVEL = "6"
_REPOSITORY = Path(__file__).resolve().parent.parent
_REMEDY = "Read the log; when the disk is full, make room and start again."


@dataclass(frozen=True)
class ReleaseKey:
    """The builder's key: its public half goes into the image."""

    file: Path
    seed: bytes
    is_new: bool = False

    @property
    def public(self) -> str:
        """In hex, as key files have it."""
        return bytes(SigningKey(self.seed).verify_key).hex()

    def sign(self, content: bytes) -> bytes:
        """A signature for a manifest."""
        return SigningKey(self.seed).sign(upgrade.SIGNED + content).signature


def release_key() -> ReleaseKey:
    """The builder's key; made on the first build unless PACS_RELEASE_KEY names one."""
    given = os.environ.get("PACS_RELEASE_KEY")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    file = Path(given) if given else home / "pacs-appliance" / "release.key"
    is_new = not given and not file.exists()
    if is_new:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w") as stream:
            stream.write(os.urandom(32).hex() + "\n")
    try:
        text = file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise BuildError(
            f"The release key {file} cannot be read: {error}.", "Name another in PACS_RELEASE_KEY."
        ) from error
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise BuildError(f"{file} holds no release key: 64 hex digits.", "Name another in PACS_RELEASE_KEY.")
    return ReleaseKey(file, bytes.fromhex(text), is_new)


def tell(key: ReleaseKey) -> None:
    """Say which key signs, and what it is worth."""
    name = hashlib.sha256(bytes.fromhex(key.public)).hexdigest()[:16]
    say(f"      release key {name}: {key.file}{' (made now)' if key.is_new else ''}")
    if key.is_new:
        say("      Keep it, and keep it secret: appliances of this build take upgrades that are signed with it only.")


def this_system(version: str) -> System:
    """What the build holds, from the sources."""
    names = [path.name for path in (_REPOSITORY / "pacs/index/migrations").glob("*.sql")]
    identity = (_REPOSITORY / "pacs/machine/identity.py").read_text()
    found = re.search(r"^POSTGRESQL_VERSION = (\d+)$", identity, re.MULTILINE)
    if not names or not found:
        raise BuildError(
            "The schema's or PostgreSQL's version is not found in the sources.", "Report this as a defect."
        )
    return System(version, max(int(name[:4]) for name in names), int(found[1]))


def write_upgrade(system_disk: Path, target: Path, system: System, epoch_s: int, key: ReleaseKey, log: Path) -> None:
    """Write the upgrade file `target` from the qcow2 of the finished system disk."""
    root = target.with_name("root.raw")
    source = {
        "driver": "raw", "offset": ROOT_A_START_MIB * MIB, "size": ROOT_SIZE_MIB * MIB,
        "file": {"driver": "qcow2", "file": {"driver": "file", "filename": str(system_disk.resolve())}},
    }  # fmt: skip
    command: list[str | Path] = ["qemu-img", "convert", "-O", "raw", f"json:{json.dumps(source)}", root]
    try:
        run_logged(command, log, remedy=_REMEDY)
        pack(root, target, system, epoch_s, key)
    finally:
        root.unlink(missing_ok=True)


def pack(root: Path, target: Path, system: System, epoch_s: int, key: ReleaseKey) -> None:
    """Write the upgrade file of a root slot's image."""
    payload = target.with_name(upgrade.PAYLOAD)
    try:
        pieces = _compress(root, payload)
        manifest = Manifest(
            version=system.version, schema=system.schema, postgresql=system.postgresql,
            built=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s)), size_bytes=root.stat().st_size,
            payload_bytes=payload.stat().st_size, payload_sha256=sha256_of(payload), pieces=tuple(pieces),
        )  # fmt: skip
        _write_tar(target, manifest, payload, epoch_s, key)
    finally:
        payload.unlink(missing_ok=True)


def _compress(root: Path, payload: Path) -> list[tuple[int, str]]:
    """Pack the pieces that are not zeros; their numbers and digests."""
    found = []
    command = ["zstd", f"-{LEVEL}", "-T0", "-q", "-f", "-o", str(payload)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for number, content in _pieces(root):
            found.append((number, hashlib.sha256(content).hexdigest()))
            process.stdin.write(content)
    if process.returncode != 0:
        raise BuildError(f"zstd ended with {process.returncode}.", _REMEDY)
    return found


def _pieces(root: Path) -> Iterator[tuple[int, bytes]]:
    """Those pieces of a sparse file that are not zeros; holes are not read."""
    zeros = bytes(PIECE_BYTES)
    with root.open("rb") as file:
        number, total = 0, root.stat().st_size // PIECE_BYTES
        while number < total:
            try:
                number = max(number, os.lseek(file.fileno(), number * PIECE_BYTES, os.SEEK_DATA) // PIECE_BYTES)
            except OSError:  # ENXIO: no data behind here
                return
            content = os.pread(file.fileno(), PIECE_BYTES, number * PIECE_BYTES)
            if content != zeros:
                yield number, content
            number += 1


def _write_tar(target: Path, manifest: Manifest, payload: Path, epoch_s: int, key: ReleaseKey) -> None:
    content = upgrade.encoded(manifest)
    small = [(upgrade.MANIFEST, content), (upgrade.SIGNATURE, key.sign(content))]
    with tarfile.open(target, "w", format=tar_format([manifest.payload_bytes])) as tar:
        for name, data in small:
            tar.addfile(member(name, len(data), epoch_s), io.BytesIO(data))
        with payload.open("rb") as stream:
            tar.addfile(member(upgrade.PAYLOAD, manifest.payload_bytes, epoch_s), stream)
