"""The OVA: descriptor, manifest and disks in one tar, in the form that every importer accepts."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packer.errors import BuildError
from packer.ova.signature import Signer

_USTAR_LIMIT_BYTES = 8 * 1024**3
_MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest(files: Iterable[tuple[str, str]]) -> str:
    """The OVF manifest of (name, hex SHA-256) pairs.

    Exactly `SHA256(name)= hex`: OpenSSL 3's own spelling (SHA2-256) and a space before the bracket are both refused
    by one importer or another.
    """
    return "".join(f"SHA256({name})= {digest}\n" for name, digest in files)


def checksums(files: Iterable[tuple[str, str]]) -> str:
    """Lines for `sha256sum --check`."""
    return "".join(f"{digest}  {name}\n" for name, digest in files)


def member(name: str, size_bytes: int, mtime: int) -> tarfile.TarInfo:
    """A tar header that says nothing about who built this: root's, 0644, a whole number of seconds."""
    if not _MEMBER_NAME.fullmatch(name):
        raise BuildError(f"{name!r} can't be the name of a file in an OVA.", "Use letters, digits, '.', '_' and '-'.")
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size_bytes, mtime, 0o644
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def tar_format(sizes_bytes: Iterable[int]) -> int:
    """USTAR, which everybody reads; GNU only for members of 8 GiB and more, which USTAR can't hold."""
    return tarfile.USTAR_FORMAT if all(size < _USTAR_LIMIT_BYTES for size in sizes_bytes) else tarfile.GNU_FORMAT


def write_ova(
    target: Path,
    descriptor_name: str,
    descriptor: str,
    disks: Sequence[Path],
    mtime: int,
    signer: Signer | None = None,
) -> None:
    """Write the OVA: descriptor first (Workstation and ovftool insist), then manifest, then what signs it if there is a
    `signer`, then the disks in order."""
    xml = descriptor.encode()
    digests = [(descriptor_name, hashlib.sha256(xml).hexdigest())]
    digests += [(disk.name, sha256_of(disk)) for disk in disks]
    listing, stem = manifest(digests).encode(), Path(descriptor_name)
    texts = [(descriptor_name, xml), (stem.with_suffix(".mf").name, listing)]
    if signer is not None:
        texts.append((stem.with_suffix(".cert").name, signer.sign(texts[1][0], listing)))
    sizes = [disk.stat().st_size for disk in disks]
    with tarfile.open(target, "w", format=tar_format(sizes)) as tar:
        for name, content in texts:
            tar.addfile(member(name, len(content), mtime), io.BytesIO(content))
        for disk, size_bytes in zip(disks, sizes, strict=True):
            with disk.open("rb") as stream:
                tar.addfile(member(disk.name, size_bytes, mtime), stream)
