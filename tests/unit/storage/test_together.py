"""Many files put at once: each whole and durable, or not there and told."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.errors import NotFound, VolumeFailed, VolumeFull
from pacs.storage import durable
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import ToPut
from pacs.storage.probing import probe
from pacs.storage.volume import create_identity
from tests.unit.storage.test_files import files_below

CONTENTS = [os.urandom(size) for size in (1, 5000, 1 << 20)]


@pytest.fixture
def volume(tmp_path: Path) -> LocalVolume:
    create_identity(tmp_path, ("tier2",))
    return LocalVolume(tmp_path, "tier2")


def to_put(*chunks_of_first: bytes) -> list[ToPut]:
    chunks = [list(chunks_of_first) or [CONTENTS[0]], [CONTENTS[1]], [CONTENTS[2][:100], CONTENTS[2][100:]]]
    return [
        ToPut(f"objects/1/2026/01/0{number % 2 + 1}/k/{number}.dcm", each, sum(map(len, each)))
        for number, each in enumerate(chunks)
    ]


def test_all_are_there_under_their_names(volume: LocalVolume) -> None:
    files = to_put()
    assert volume.put_many(files) == [hashlib.sha256(content).digest() for content in CONTENTS]
    assert files_below(volume.root) == {file.path for file in files}
    for file, content in zip(files, CONTENTS, strict=True):
        assert volume.digest_on_disk(file.path) == hashlib.sha256(content).digest()
    assert volume.put_many([]) == []


def test_nothing_has_its_name_before_the_sync(volume: LocalVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, str]] = []
    real_sync, real_rename, real_fsync = durable.sync_file_system, os.rename, os.fsync

    def sync(fd: int) -> None:
        steps.append(("sync", ""))
        real_sync(fd)

    def rename(source: str, target: str) -> None:
        steps.append(("rename", str(Path(target).parent)))
        real_rename(source, target)

    def fsync(fd: int) -> None:
        steps.append(("fsync", str(Path(f"/proc/self/fd/{fd}").readlink())))
        real_fsync(fd)

    monkeypatch.setattr(durable, "sync_file_system", sync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "fsync", fsync)
    volume.put_many(to_put())
    done = [what for what, _folder in steps]
    assert done.count("sync") == 1
    assert done.index("sync") < done.index("rename")
    assert done.count("rename") == 3
    for folder in {folder for what, folder in steps if what == "rename"}:
        in_folder = [what for what, each in steps if each == folder]
        assert in_folder[-1] == "fsync", "behind all names of the folder"
        assert in_folder[in_folder.index("rename") :].count("fsync") == 1


def test_one_that_fails_takes_no_other_down(volume: LocalVolume) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise NotFound("gone")

    files = to_put()
    files[0] = ToPut(files[0].path, broken(), 10)
    files[1] = ToPut(files[1].path, [b""], 1 << 60)
    first, second, third = volume.put_many(files)
    assert isinstance(first, NotFound)
    assert isinstance(second, VolumeFull)
    assert third == hashlib.sha256(CONTENTS[2]).digest()
    assert files_below(volume.root) == {files[2].path}


@pytest.mark.parametrize("where", ["sync", "rename", "folder"])
def test_what_is_not_durable_is_not_there(volume: LocalVolume, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*_words: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    volume.put_many([ToPut(file.path + "0", file.chunks, file.size_bytes) for file in to_put()])  # the folders
    before = files_below(volume.root)
    with monkeypatch.context() as broken:
        module, name = {"sync": (durable, "sync_file_system"), "rename": (os, "rename"), "folder": (os, "fsync")}[where]
        broken.setattr(module, name, fail)
        assert [type(each) for each in volume.put_many(to_put())] == [VolumeFailed] * 3
    assert files_below(volume.root) == before


def test_a_source_that_breaks_down_leaves_nothing(volume: LocalVolume) -> None:
    def broken() -> Iterator[bytes]:
        raise ZeroDivisionError
        yield b""

    files = to_put()
    files[2] = ToPut(files[2].path, broken(), 10)
    with pytest.raises(ZeroDivisionError):
        volume.put_many(files)
    assert files_below(volume.root) == set()


def test_a_sync_of_the_kernel_that_fails_is_told() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        durable.sync_file_system(-1)


def test_a_probe_leaves_nothing_and_tells_what_is_wrong(volume: LocalVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = probe(volume, is_new=True)
    assert [finding.what for finding in findings if not finding.is_well] == []
    assert {"identity", "room", "read on the far side", "listed"} <= {finding.what for finding in findings}
    assert files_below(volume.root) == set()
    with monkeypatch.context() as lying:
        lying.setattr(volume, "digest_on_disk", lambda _path: bytes(32))
        assert [each.what for each in probe(volume) if not each.is_well] == ["read on the far side"]
    assert files_below(volume.root) == set()
    (volume.root / "volume.json").unlink()
    assert [(each.what, each.is_well) for each in probe(volume)] == [("identity", False)]


def test_names_in_many_folders_share_one_sync(volume: LocalVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real_sync, real_rename = durable.sync_file_system, os.rename
    monkeypatch.setattr(durable, "sync_file_system", lambda fd: (steps.append("sync"), real_sync(fd))[1])
    monkeypatch.setattr(os, "rename", lambda *names: (steps.append("rename"), real_rename(*names))[1])
    files = [ToPut(f"objects/{number:02x}/{number:02x}/x.bin", [b"x"], 1) for number in range(20)]
    assert volume.put_many(files) == [hashlib.sha256(b"x").digest()] * 20
    assert steps == ["sync", *["rename"] * 20, "sync"]
    assert files_below(volume.root) == {file.path for file in files}


def test_names_in_many_folders_that_cannot_be_synced_are_taken_back(
    volume: LocalVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_sync, calls = durable.sync_file_system, []

    def sync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real_sync(fd)

    monkeypatch.setattr(durable, "sync_file_system", sync)
    files = [ToPut(f"objects/{number:02x}/{number:02x}/x.bin", [b"x"], 1) for number in range(20)]
    assert all(isinstance(each, VolumeFailed) for each in volume.put_many(files))
    assert files_below(volume.root) == set()
