"""A volume under everything that disks do: full, failing, read-only, gone, and lying about what they hold."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs.errors import ForeignVolume, NotFound, PacsError, VolumeError, VolumeFailed, VolumeFull, VolumeMissing
from pacs.storage.files import LocalVolume
from pacs.storage.incoming import Incoming
from pacs.storage.names import fresh_path, object_path, sha256_in_name
from pacs.storage.volume import create_identity
from tests.unit.storage.test_durable import failing

CONTENT = bytes(range(256)) * 8192  # 2 MiB: two chunks
PATH = object_path(1, datetime(2026, 1, 2, tzinfo=UTC), "0123456789abcdef", hashlib.sha256(CONTENT).digest())


@pytest.fixture
def volume(tmp_path: Path) -> LocalVolume:
    create_identity(tmp_path, ("tier1",))
    return LocalVolume(tmp_path, "tier1")


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {"volume.json"}


def placed(volume: LocalVolume, path: str = PATH) -> Path:
    volume.place(volume.receive([CONTENT], len(CONTENT)), path)
    return volume.root / path


def test_what_is_received_and_placed_is_there_with_its_digest(volume: LocalVolume) -> None:
    received = volume.receive([CONTENT[:7], memoryview(CONTENT)[7:]], len(CONTENT))
    assert received.sha256 == hashlib.sha256(CONTENT).digest()
    assert received.size_bytes == len(CONTENT)
    volume.place(received, PATH)
    assert files_below(volume.root) == {PATH}
    assert b"".join(volume.read(PATH)) == CONTENT
    assert volume.read_start(PATH, 10) == CONTENT[:10]
    assert volume.digest_on_disk(PATH) == received.sha256 == sha256_in_name(PATH)
    assert [(file.path, file.size_bytes) for file in volume.walk()] == [(PATH, len(CONTENT))]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_digest_from_the_disk_is_right_at_every_size(volume: LocalVolume, size: int) -> None:
    content = os.urandom(size)
    volume.place(volume.receive([content], size), PATH)
    assert volume.digest_on_disk(PATH) == hashlib.sha256(content).digest()


def test_bytes_changed_on_the_disk_are_seen(volume: LocalVolume) -> None:
    path = placed(volume)
    with open(path, "r+b") as file:
        file.seek(1_500_000)
        file.write(b"\xff" if CONTENT[1_500_000] != 0xFF else b"\0")
        file.flush()
        os.fsync(file.fileno())
    assert volume.digest_on_disk(PATH) != hashlib.sha256(CONTENT).digest()


def test_the_page_cache_is_passed_by(volume: LocalVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    """With O_DIRECT where the file system has it, else after its pages were dropped."""
    placed(volume)
    flags: list[int] = []
    dropped: list[int] = []
    real_open, real_advise = os.open, os.posix_fadvise
    monkeypatch.setattr(os, "open", lambda path, flag, *rest: (flags.append(flag), real_open(path, flag, *rest))[1])
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, at, size, advice: (dropped.append(advice), real_advise(fd, at, size, advice))[1]
    )
    volume.digest_on_disk(PATH)
    assert any(flag & os.O_DIRECT for flag in flags)
    assert len(flags) == 1 or os.POSIX_FADV_DONTNEED in dropped


# --- failing disks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "number", "expected"),
    [
        ("write", errno.ENOSPC, VolumeFull), ("write", errno.EIO, VolumeFailed), ("write", errno.EDQUOT, VolumeFull),
        ("fsync", errno.EIO, VolumeFailed), ("fsync", errno.ENOSPC, VolumeFull), ("open", errno.EROFS, VolumeFailed),
    ],
)  # fmt: skip
def test_nothing_is_left_of_what_could_not_be_received(
    volume: LocalVolume, monkeypatch: pytest.MonkeyPatch, call: str, number: int, expected: type[PacsError]
) -> None:
    with monkeypatch.context() as broken:
        failing(broken, call, number, from_call=2 if call == "write" else 1)
        with pytest.raises(expected) as caught:
            volume.receive([CONTENT[:100], CONTENT[100:]], len(CONTENT))
    assert caught.value.status == 0xA700
    assert files_below(volume.root) == set()
    placed(volume)  # and the volume goes on


@pytest.mark.parametrize("fsync_number", range(1, 9))
def test_nothing_is_left_of_what_could_not_be_placed(
    volume: LocalVolume, monkeypatch: pytest.MonkeyPatch, fsync_number: int
) -> None:
    """Whichever fsync of the way down to the new folder fails, or that of the folder itself."""
    received = volume.receive([CONTENT], len(CONTENT))
    with monkeypatch.context() as broken:
        failing(broken, "fsync", errno.EIO, from_call=fsync_number)
        try:
            volume.place(received, PATH)
        except VolumeFailed:
            assert files_below(volume.root) == set()
        else:
            assert fsync_number > 7, "a failed fsync was not noticed"
            assert files_below(volume.root) == {PATH}


def test_a_failed_rename_leaves_nothing(volume: LocalVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    received = volume.receive([CONTENT], len(CONTENT))
    failing(monkeypatch, "rename", errno.EIO)
    with pytest.raises(VolumeFailed):
        volume.place(received, PATH)
    assert files_below(volume.root) == set()


def test_a_fsync_that_failed_is_not_tried_again(volume: LocalVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(fd), (_ for _ in ()).throw(OSError(errno.EIO, "x")))[1])
    with pytest.raises(VolumeFailed):
        volume.receive([CONTENT], len(CONTENT))
    assert len(calls) == 1


def test_a_file_size_limit_of_the_kernel_is_a_failed_volume(volume: LocalVolume) -> None:
    """A real write error, not an injected one: EFBIG in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(VolumeFailed):
            volume.receive([CONTENT], len(CONTENT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_below(volume.root) == set()


def test_a_volume_without_room_for_it_is_not_begun(volume: LocalVolume) -> None:
    with pytest.raises(VolumeFull):
        volume.receive([CONTENT], volume.room().free_bytes)
    assert files_below(volume.root) == set()


def test_a_source_that_fails_in_the_middle_leaves_nothing(volume: LocalVolume) -> None:
    """A mover's source is another volume, a restore's a repository; their errors stay what they are."""

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:1000]
        raise NotFound("gone")

    with pytest.raises(NotFound):
        volume.receive(chunks(), len(CONTENT))
    assert files_below(volume.root) == set()


def test_a_disk_that_cannot_be_read_is_a_failed_volume(volume: LocalVolume) -> None:
    """/proc/self/mem is a regular file that gives EIO at its beginning: a bad sector without a bad disk."""
    (volume.root / "objects").mkdir()
    (volume.root / "objects" / "bad.dcm").symlink_to("/proc/self/mem")
    for read in (
        lambda: list(volume.read("objects/bad.dcm")),
        lambda: volume.read_start("objects/bad.dcm", 100),
        lambda: volume.digest_on_disk("objects/bad.dcm"),
    ):
        with pytest.raises(VolumeFailed) as caught:
            read()
        assert str(volume.root) in str(caught.value)


def test_a_read_error_of_the_source_is_not_blamed_on_the_target(
    volume: LocalVolume, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("tier2")
    create_identity(other, ("tier2",))
    target = LocalVolume(other, "tier2")
    (volume.root / "objects").mkdir()
    (volume.root / "objects" / "bad.dcm").symlink_to("/proc/self/mem")
    with pytest.raises(VolumeFailed) as caught:
        target.receive(volume.read("objects/bad.dcm"), 100)
    assert str(volume.root) in str(caught.value)
    assert str(other) not in str(caught.value)
    assert files_below(other) == set()


# --- mounts ----------------------------------------------------------------------------------------------------------


def test_a_mount_that_went_away_is_not_written_below(volume: LocalVolume) -> None:
    (volume.root / "volume.json").rename(volume.root.with_name("taken-away.json"))
    before = files_below(volume.root)
    for use in (
        lambda: volume.receive([CONTENT], len(CONTENT)),
        lambda: volume.remove(PATH),
        lambda: volume.quarantine(PATH),
        volume.require_present,
    ):
        with pytest.raises(VolumeMissing):
            use()
    assert files_below(volume.root) == before


def test_a_mount_that_goes_between_the_look_and_the_first_byte_is_noticed(volume: LocalVolume) -> None:
    volume.require_writable()
    with pytest.raises(VolumeMissing):
        Incoming(volume.root, volume.root.stat().st_dev + 1, volume.require_room)
    assert files_below(volume.root) == set()


def test_another_disk_in_its_place_is_not_written_to(volume: LocalVolume) -> None:
    """Same folder, another volume's identity file: a swapped disk that was mounted over it."""
    (volume.root / "volume.json").unlink()
    create_identity(volume.root, ("tier1",))
    with pytest.raises(VolumeError):
        volume.receive([CONTENT], len(CONTENT))


def test_a_folder_that_somebody_removed_is_made_again(volume: LocalVolume) -> None:
    placed(volume)
    shutil.rmtree(volume.root / "objects")
    placed(volume)
    assert files_below(volume.root) == {PATH}


def test_an_identity_file_that_was_put_back_is_the_same_volume(volume: LocalVolume) -> None:
    identity = volume.root / "volume.json"
    content = identity.read_bytes()
    identity.rename(volume.root / "moved-away")
    identity.write_bytes(content)
    (volume.root / "moved-away").unlink()
    volume.require_present()


def test_a_volume_is_opened_for_its_role_only(volume: LocalVolume) -> None:
    with pytest.raises(VolumeError) as caught:
        LocalVolume(volume.root, "tier2")
    assert not isinstance(caught.value, ForeignVolume)
    with pytest.raises(VolumeMissing):
        LocalVolume(volume.root / "incoming", "tier1")


# --- the rest --------------------------------------------------------------------------------------------------------


def test_no_two_paths_are_the_same(volume: LocalVolume) -> None:
    digest, when = bytes(32), datetime(2026, 1, 2, tzinfo=UTC)
    paths = {object_path(1, when, "k" * 16, digest) for _ in range(1000)}
    assert len(paths) == 1000
    assert all(sha256_in_name(path) == digest for path in paths)
    assert len({fresh_path(PATH) for _ in range(1000)} | {PATH}) == 1001
    assert sha256_in_name(fresh_path(PATH)) == sha256_in_name(PATH)


@pytest.mark.parametrize(
    "name", ["x.dcm", "0" * 64 + ".dcm", "0" * 64 + "-00000000000g.dcm", "0" * 64 + "-000000000000.dcm.part"]
)
def test_what_is_no_objects_name_has_no_digest(name: str) -> None:
    assert sha256_in_name(f"objects/1/2026/01/02/k/{name}") is None


def test_quarantine_keeps_the_bytes(volume: LocalVolume) -> None:
    placed(volume)
    moved = volume.quarantine(PATH)
    assert moved.startswith("quarantine/")
    assert (volume.root / moved).read_bytes() == CONTENT
    assert not volume.has(PATH)
    assert list(volume.walk()) == []
    with pytest.raises(NotFound):
        volume.path_of(PATH)


def test_removing_twice_is_no_fault(volume: LocalVolume) -> None:
    placed(volume)
    volume.remove(PATH)
    volume.remove(PATH)
    assert not volume.has(PATH)


def test_threads_that_make_the_same_folders_all_succeed(volume: LocalVolume) -> None:
    failures: list[BaseException] = []
    paths = [object_path(1, datetime(2026, 1, 1 + number % 3, tzinfo=UTC), "k" * 16, bytes(32)) for number in range(48)]

    def work(mine: list[str]) -> None:
        try:
            for path in mine:
                volume.place(volume.receive([b"x"], 1), path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(paths[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert files_below(volume.root) == set(paths)
