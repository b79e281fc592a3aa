"""`python -m packer.ova.verify FILE.ova`: whether an OVA is whole, unchanged and as importers want it.

Reads the file once, unpacks nothing to disk: the tar and the order in it, the manifest's digests, the descriptor
against the files, every grain of every disk, and the signature if there is one. Ends with 0 when all is well, else 1.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from cryptography import x509

from packer.errors import BuildError
from packer.ova.contents import Contents, read_contents
from packer.ova.signature import SignatureError, read_certificates
from packer.ova.signature import verify as verify_signature
from packer.ova.streamvmdk import check

_LINE = re.compile(r"SHA256\(([A-Za-z0-9._-]+)\)= ([0-9a-f]{64})")
_AGAIN = "Fetch it again, and compare it with SHA256SUMS; don't import it."
_BLOCK_BYTES = tarfile.BLOCKSIZE


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify an OVA; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m packer.ova.verify", description=__doc__)
    parser.add_argument("ova", type=Path, help="the file")
    parser.add_argument(
        "--certificate",
        type=Path,
        help="PEM file of certificates that you trust, the signer's own or its CA's: then the OVA must be signed",
    )
    options = parser.parse_args(arguments)
    try:
        trusted = read_certificates(options.certificate) if options.certificate else []
        for line in verify(options.ova, trusted):
            print(line)
    except BuildError as error:
        print(f"{options.ova}: {error.what}\nWhat to do: {error.remedy}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"{error}.\nWhat to do: name a file that can be read.", file=sys.stderr)
        return 1
    return 0


def verify(ova: Path, trusted: Sequence[x509.Certificate] = ()) -> list[str]:
    """Check an OVA; what was found, a line each. Raise BuildError with what is wrong and what to do."""
    with ova.open("rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:", ignore_zeros=False) as tar:
                members = {entry.name: entry for entry in _members(tar)}
                _check_end(ova, members)
                return _verify(tar, list(members), trusted)
        except tarfile.TarError as error:
            raise BuildError(f"This is no OVA, or one that was cut off ({error}).", _AGAIN) from error


def _verify(tar: tarfile.TarFile, names: list[str], trusted: Sequence[x509.Certificate]) -> list[str]:
    stem = _check_order(names)
    listing = _read(tar, f"{stem}.mf")
    # First who vouches for it, then what is vouched for: of a forged OVA no more is read than that.
    said = [_signature(tar, stem, listing, trusted)]
    digests = _check_manifest(listing, [name for name in names if not name.endswith((".mf", ".cert"))])
    for name, digest in digests.items():
        with _open(tar, name) as stream:
            if _sha256(stream) != digest:
                raise BuildError(f"{name} is not what the manifest says: it was changed or damaged.", _AGAIN)
    said.append(f"manifest: {len(digests)} files as they were made")
    contents = read_contents(_read(tar, f"{stem}.ovf"))
    _check_files(contents, {name: tar.getmember(name).size for name in names})
    said.append(f"descriptor: {contents.name}, {contents.hardware}, {len(contents.disks)} disks")
    for disk in contents.disks:
        with _open(tar, disk.file_name) as stream:
            capacity_bytes, grains = _check_disk(stream, disk.file_name)
        if capacity_bytes != disk.capacity_bytes:
            raise BuildError(
                f"{disk.file_name} is a disk of {capacity_bytes} bytes, the descriptor says {disk.capacity_bytes}.",
                _AGAIN,
            )
        said.append(f"disk: {disk.file_name}, {capacity_bytes / 1024**3:.1f} GiB, {grains} grains whole")
    return said


def _members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The headers of the tar, each of a plain file, no name twice."""
    members = tar.getmembers()
    names = [entry.name for entry in members]
    if not names:
        raise BuildError("This OVA is empty.", _AGAIN)
    odd = [entry.name for entry in members if not entry.isreg() or not re.fullmatch(r"[A-Za-z0-9._-]+", entry.name)]
    if odd or len(set(names)) != len(names):
        raise BuildError(f"The OVA holds what is no file of an OVA: {odd or names}.", _AGAIN)
    return members


def _check_end(ova: Path, members: dict[str, tarfile.TarInfo]) -> None:
    """A tar ends with two empty blocks (POSIX.1 ustar): without them, something is missing."""
    last = max(members.values(), key=lambda entry: entry.offset_data)
    end = last.offset_data + -(-last.size // _BLOCK_BYTES) * _BLOCK_BYTES
    with ova.open("rb") as stream:
        stream.seek(end)
        if stream.read(2 * _BLOCK_BYTES) != bytes(2 * _BLOCK_BYTES):
            raise BuildError(f"The OVA is cut off in or behind {last.name}.", _AGAIN)
        while rest := stream.read(1 << 20):
            if any(rest):
                raise BuildError("Something stands behind the end of the OVA.", _AGAIN)


def _check_order(names: list[str]) -> str:
    """The name's stem. ovftool and Workstation take no order but .ovf, .mf, .cert if there is one, the disks."""
    stem = names[0].removesuffix(".ovf")
    begins = [f"{stem}.ovf", f"{stem}.mf"]
    if f"{stem}.cert" in names:
        begins.append(f"{stem}.cert")
    rest = names[len(begins) :]
    if names[: len(begins)] != begins or any(name.endswith((".ovf", ".mf", ".cert")) for name in rest):
        raise BuildError(
            f"The files stand in an order that importers refuse: {', '.join(names)}.",
            "The descriptor must be first, its manifest next. Somebody has packed it anew: fetch the original.",
        )
    return stem


def _signature(tar: tarfile.TarFile, stem: str, listing: bytes, trusted: Sequence[x509.Certificate]) -> str:
    if f"{stem}.cert" not in tar.getnames():
        if trusted:
            raise BuildError("The OVA is not signed.", "Fetch the signed one, or verify it without --certificate.")
        return "signature: none"
    try:
        who = verify_signature(_read(tar, f"{stem}.cert"), f"{stem}.mf", listing, trusted)
    except SignatureError as error:
        raise BuildError(f"The signature is not good: {error}.", _AGAIN) from error
    return f"signature: {who}" + ("" if trusted else " (says the OVA; give --certificate to have it proven)")


def _check_manifest(listing: bytes, wanted: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in listing.decode("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line)
        if not match or match[1] in found:
            raise BuildError(f"The manifest has a line that importers don't take: {line!r}.", _AGAIN)
        found[match[1]] = match[2]
    if set(found) != set(wanted):
        odd = sorted(set(found) ^ set(wanted))
        raise BuildError(f"Manifest and OVA don't hold the same files: {', '.join(odd)}.", _AGAIN)
    return found


def _check_files(contents: Contents, sizes: dict[str, int]) -> None:
    for name, size_bytes in contents.files.items():
        if sizes.get(name) != size_bytes:
            raise BuildError(
                f"The descriptor speaks of {name} with {size_bytes} bytes; the OVA has {sizes.get(name, 'none')}.",
                _AGAIN,
            )
    disks = [name for name in sizes if not name.endswith((".ovf", ".mf", ".cert"))]
    if disks != list(contents.files):
        raise BuildError(
            f"The disks stand in another order than in the descriptor: {', '.join(disks)}.",
            "Importers that read the OVA as a stream would miss one: fetch the original.",
        )


def _check_disk(stream: IO[bytes], name: str) -> tuple[int, int]:
    try:
        return check(stream)
    except BuildError as error:
        raise BuildError(f"{name}: {error.what}", _AGAIN) from error


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while part := stream.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = tar.extractfile(name)
    if stream is None:
        raise BuildError(f"{name} is not in the OVA.", _AGAIN)
    return stream


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    with _open(tar, name) as stream:
        return stream.read()


if __name__ == "__main__":
    sys.exit(main())
