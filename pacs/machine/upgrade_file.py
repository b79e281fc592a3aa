"""An upgrade file: opened, its signature and digests checked, its pieces given out one by one.

Who may sign: the release's key that the image brings, and those that a person has trusted (`pacs upgrade trust`), in
DATA/config/upgrade-keys. A key file holds an Ed25519 public key in hex.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pacs.errors import UsageError
from pacs.machine.commands import MachineError
from pacs.model import upgrade
from pacs.model.upgrade import Manifest
from pacs.storage import durable

BAKED_KEYS = Path("/usr/local/share/pacs/release-keys")
TRUSTED_FOLDER = Path("config", "upgrade-keys")
_READ_BYTES = 1 << 20
_MANIFEST_BYTES_MAX = 64 << 20
_AGAIN = "Nothing was touched. Copy the file once more and compare it with SHA256SUMS of the release."

#: Called with how many bytes were done.
Tell = Callable[[int], object]


@dataclass(frozen=True)
class UpgradeFile:
    """An upgrade file whose manifest was signed by somebody who is trusted. `signer`: the name of that key's file."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    signer: str
    payload_offset: int

    def check_payload(self, tell: Tell = lambda _done: None) -> None:
        """Read all of it and compare with what was signed. Raise UsageError."""
        digest = hashlib.sha256()
        for block in self._payload():
            digest.update(block)
            tell(len(block))
        if digest.hexdigest() != self.manifest.payload_sha256:
            raise UsageError(f"{self.path} is damaged: its digest is not the one that was signed. {_AGAIN}")

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(number, bytes) of each piece, unpacked and compared with its digest. Raise UsageError, MachineError."""
        size = self.manifest.piece_bytes
        with self._unpacked() as stream:
            for number, sha256 in self.manifest.pieces:
                content = stream.read(size)
                if len(content) != size or hashlib.sha256(content).hexdigest() != sha256:
                    raise UsageError(f"Piece {number} of {self.path} is not what was signed. {_AGAIN}")
                yield number, content

    def _payload(self) -> Iterator[bytes]:
        left = self.manifest.payload_bytes
        with self.path.open("rb") as file:
            file.seek(self.payload_offset)
            while left and (block := file.read(min(left, _READ_BYTES))):
                left -= len(block)
                yield block
        if left:
            raise UsageError(f"{self.path} is cut short: {left} bytes are missing. {_AGAIN}")

    @contextmanager
    def _unpacked(self) -> Iterator[BinaryIO]:
        try:
            process = subprocess.Popen(["zstd", "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise MachineError(f"`zstd` cannot be run: {error.strerror}. Is its package installed?") from error
        assert process.stdin is not None
        assert process.stdout is not None
        feeder = threading.Thread(target=self._feed, args=(process.stdin,), daemon=True)
        feeder.start()
        try:
            yield process.stdout  # type: ignore[misc]  # typeshed: IO[bytes]
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
            feeder.join()

    def _feed(self, stdin: BinaryIO) -> None:
        try:
            for block in self._payload():
                stdin.write(block)
            stdin.close()
        except (OSError, UsageError, ValueError):  # whoever reads sees that there is less than there should be
            return


def open_file(path: Path, keys: dict[str, bytes]) -> UpgradeFile:
    """Open an upgrade file and check its manifest's signature. Raise UsageError if it is none, or nobody's we trust."""
    members = _members(path)
    content = _small(path, members[upgrade.MANIFEST])
    signer = _signer(content, _small(path, members[upgrade.SIGNATURE]), keys)
    if not signer:
        raise UsageError(
            f"{path} is not signed by a key that this appliance trusts. Nothing was touched. Take the file of the "
            "release; if it comes from another builder whom you trust: pacs upgrade trust KEY-FILE"
        )
    try:
        manifest = upgrade.decoded(content)
    except ValueError as error:
        raise UsageError(
            f"{path} cannot be used: {error}. Nothing was touched. Upgrade to a version between."
        ) from error
    place = members[upgrade.PAYLOAD]
    size_bytes = path.stat().st_size
    if place.size != manifest.payload_bytes or place.offset_data + place.size > size_bytes:
        raise UsageError(f"{path} is cut short: it has {size_bytes} bytes. {_AGAIN}")
    return UpgradeFile(path, manifest, hashlib.sha256(content).hexdigest(), signer, place.offset_data)


def trusted_keys(data: Path, baked: Path = BAKED_KEYS) -> dict[str, bytes]:
    """Name -> public key, of the image and of those that a person trusts. What is no key is left out."""
    found = {}
    for folder in (baked, data / TRUSTED_FOLDER):
        for path in sorted(folder.glob("*.pub")):
            try:
                found[path.stem] = parse_key(path.read_text("ascii"))
            except (OSError, ValueError, UsageError):
                continue
    return found


def trust(data: Path, file: Path) -> str:
    """Trust the key in a file from now on. Return its fingerprint. Raise UsageError if there is no key in it."""
    try:
        key = parse_key(file.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error
    name = fingerprint(key)
    durable.make_folders(data / TRUSTED_FOLDER)
    durable.replace_file(data / TRUSTED_FOLDER / f"{name}.pub", (key.hex() + "\n").encode(), 0o644)
    return name


def parse_key(text: str) -> bytes:
    """The key in a key file's text. Raise UsageError if there is none."""
    if not re.fullmatch(r"[0-9a-f]{64}", text.strip()):
        raise UsageError("This is no key: it holds 64 hex digits, as `make appliance` writes them beside the release.")
    return bytes.fromhex(text.strip())


def fingerprint(key: bytes) -> str:
    """A short name for a key, to be compared by a person."""
    return hashlib.sha256(key).hexdigest()[:16]


def _signer(manifest: bytes, signature: bytes, keys: dict[str, bytes]) -> str:
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey  # not for the boot path, which imports this package

    for name, key in keys.items():
        try:
            VerifyKey(key).verify(upgrade.SIGNED + manifest, signature)
            return name
        except (BadSignatureError, ValueError):
            continue
    return ""


def _members(path: Path) -> dict[str, tarfile.TarInfo]:
    try:
        with tarfile.open(path, "r:") as tar:
            found = {}
            for wanted in (upgrade.MANIFEST, upgrade.SIGNATURE, upgrade.PAYLOAD):
                member = tar.next()
                if member is None or member.name != wanted or not member.isreg():
                    raise UsageError(f"{path} is no upgrade file: it has no {wanted}. {_AGAIN}")
                found[wanted] = member
            return found
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"{path} cannot be read as an upgrade file: {error}. {_AGAIN}") from error


def _small(path: Path, member: tarfile.TarInfo) -> bytes:
    if member.size > _MANIFEST_BYTES_MAX:
        raise UsageError(f"{path} is no upgrade file: its {member.name} is too large. {_AGAIN}")
    with path.open("rb") as file:
        file.seek(member.offset_data)
        content = file.read(member.size)
    if len(content) != member.size:
        raise UsageError(f"{path} is cut short. {_AGAIN}")
    return content
