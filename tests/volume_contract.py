"""What every kind of volume does with an object, wherever its bytes are."""

from __future__ import annotations

import hashlib

import pytest

from pacs.errors import NotFound
from pacs.storage.kinds import Volume


def put_and_find(volume: Volume, path: str, content: bytes) -> None:
    """The only object of a volume: put in two pieces, read from everywhere, listed."""
    sha256, late = hashlib.sha256(content).digest(), len(content) - 100_000
    assert volume.put(path, [content[:7], memoryview(content)[7:]], len(content)) == sha256
    assert volume.digest_on_disk(path) == sha256
    assert b"".join(volume.read(path)) == content
    assert b"".join(volume.read(path, late)) == content[late:]
    assert volume.read_start(path, 132) == content[:132]
    assert volume.size_of(path) == len(content) and volume.has(path)
    assert [(each.path, each.size_bytes) for each in volume.walk()] == [(path, len(content))]
    folder, _, name = path.rpartition("/")
    assert [each.path for each in volume.walk(folder)] == [path]
    assert volume.names(folder) == [name] and volume.names(folder.rpartition("/")[0]) == [folder.rpartition("/")[2]]
    assert volume.names("objects/nowhere") == [] and list(volume.walk("objects/nowhere")) == []


def remove_and_miss(volume: Volume, path: str) -> None:
    """The same, removed twice, and then it is nowhere."""
    volume.remove(path)
    volume.remove(path)
    assert not volume.has(path) and list(volume.walk()) == []
    for read in (volume.size_of, volume.open, volume.digest_on_disk, lambda gone: volume.read_start(gone, 9)):
        with pytest.raises(NotFound, match="reconcile"):
            read(path)
