"""Volumes on shares: what a share process does, and that a share that hangs holds up nobody else."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs.errors import (
    ForeignVolume,
    NotFound,
    PacsError,
    SettingsError,
    UsageError,
    VolumeFailed,
    VolumeMissing,
)
from pacs.storage import share_pool
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import ToPut
from pacs.storage.names import object_path
from pacs.storage.opening import Place, open_volume
from pacs.storage.share import ShareVolume
from pacs.storage.share_pool import Pool
from pacs.storage.volume import create_identity, read_identity
from tests.fix_share import APPLIANCE_ID, OPTIONS, Share
from tests.volume_contract import put_and_find, remove_and_miss

CONTENT = secrets.token_bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).digest()


def new_path(content: bytes = CONTENT) -> str:
    return object_path(1, datetime.now(UTC), "42", hashlib.sha256(content).digest())


@pytest.fixture
def volume(share: Share) -> ShareVolume:
    return ShareVolume("smb", str(share.folder), "tier3", {**OPTIONS, "timeout_s": 60})


@pytest.fixture
def hasty(share: Share) -> ShareVolume:
    """One whose share soon counts as missing."""
    return ShareVolume("smb", str(share.folder), "tier3", OPTIONS)


def pool_of(volume: ShareVolume) -> Pool:
    return volume._pool


def share_processes(folder: Path) -> list[Path]:
    """The processes that this share has, ended ones that nobody has collected not counted."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"pacs.storage.share_process" in words and str(folder).encode() in words:
            found.append(process)
    return found


def wait_until(what: object, timeout_s: float = 20) -> None:
    assert callable(what)
    ends = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < ends, "it did not come to be"
        time.sleep(0.02)


# --- what it does ----------------------------------------------------------------------------------------------------


def test_files_lie_on_the_share_as_on_a_disk(volume: ShareVolume, share: Share) -> None:
    path = new_path()
    put_and_find(volume, path, CONTENT)
    assert (share.server / path).read_bytes() == CONTENT
    reader = volume.open(path)
    for offset in (0, 5, len(CONTENT) - 3, 1 << 20, 0):
        buffer = memoryview(bytearray(1_500_000))
        size = reader.read_into(buffer, offset)
        assert bytes(buffer[:size]) == CONTENT[offset : offset + 1_500_000]
    reader.close()
    assert volume.room().size_bytes == LocalVolume(share.server, "tier3").room().size_bytes
    volume.require_room(1)
    volume.require_writable()
    remove_and_miss(volume, path)


def test_a_source_that_fails_leaves_nothing(volume: ShareVolume) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(2 << 20)
        raise VolumeFailed("the source's disk")

    def stopped() -> Iterator[bytes]:
        yield b"x"
        raise KeyboardInterrupt

    with pytest.raises(VolumeFailed, match="the source's disk"):
        volume.put(new_path(), broken(), 4 << 20)
    with pytest.raises(KeyboardInterrupt):
        volume.put(new_path(), stopped(), 4)
    wait_until(lambda: all(each.path.startswith("incoming/") for each in volume.walk()))
    assert volume.put(new_path(), [CONTENT], len(CONTENT)) == SHA256


def test_many_are_put_at_once_and_each_has_its_outcome(volume: ShareVolume) -> None:
    def broken() -> Iterator[bytes]:
        yield b"y"
        raise NotFound("the source's file")

    contents = [secrets.token_bytes(1000) for _ in range(20)]
    files = [ToPut(new_path(content), [content], 1000) for content in contents]
    files.insert(7, ToPut(new_path(), broken(), 1000))
    outcomes = volume.put_many(files)
    failed = outcomes.pop(7)
    assert isinstance(failed, NotFound)
    assert outcomes == [hashlib.sha256(content).digest() for content in contents]
    assert {each.path for each in volume.walk()} == {file.path for file in files} - {files[7].path}


def test_what_is_read_from_the_share_can_be_put_there(volume: ShareVolume) -> None:
    """As many puts as may be under way, each of which needs another process for what it puts."""
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    outcomes: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(volume.put(new_path(), volume.read(path), len(CONTENT))))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [SHA256] * 12
    assert len(share_processes(Path(volume.location))) <= share_pool.PROCESSES_MAX


def test_listings_notes_and_quarantine(volume: ShareVolume, share: Share) -> None:
    folder = share.server / "objects/1"
    folder.mkdir(parents=True)
    for number in range(510):
        (folder / f"{number}").touch()
    assert len(list(volume.walk())) == 510
    listing = volume.walk()
    next(listing)
    listing.close()  # a listing that is not read to its end
    target = volume.quarantine("objects/1/7")
    assert (share.server / target).is_file() and len(list(volume.walk())) == 509
    volume.replace_small("journal/2026-11.jsonl", b"one\n")
    volume.replace_small("journal/2026-11.jsonl", b"one\ntwo\n")
    assert volume.read_small("journal/2026-11.jsonl") == b"one\ntwo\n"


@pytest.mark.parametrize("pieces", [1, 40], ids=["kept in memory", "flowing"])
def test_what_is_received_is_there_when_it_is_placed(volume: ShareVolume, share: Share, pieces: int) -> None:
    content = secrets.token_bytes(pieces * 200_000)
    incoming = volume.begin()
    for at in range(0, len(content), 200_000):
        incoming.write(memoryview(content)[at : at + 200_000])
        incoming.begin_writeback()
    assert incoming.sha256 == hashlib.sha256(content).digest() and incoming.size_bytes == len(content)
    received = incoming.finish()
    (left,) = volume.walk()
    assert left.path.startswith("incoming/")
    path = new_path(content)
    volume.place(received, path)
    assert (share.server / path).read_bytes() == content
    assert [each.path for each in volume.walk()] == [path]
    volume.discard(received)


def test_what_is_abandoned_leaves_nothing(volume: ShareVolume) -> None:
    for size_bytes in (10, 5 << 20):
        incoming = volume.begin()
        incoming.write(bytes(size_bytes))
        incoming.abandon()
        incoming.abandon()
    incoming = volume.begin()
    incoming.write(b"x")
    volume.discard(incoming.finish())
    assert list(volume.walk()) == []


def test_a_share_that_hangs_while_it_receives(hasty: ShareVolume, share: Share) -> None:
    pool_of(hasty)._back_off_s = 60
    small, large = hasty.begin(), hasty.begin()
    small.write(b"x")
    large.write(bytes(3 << 20))
    share.hang()
    for incoming in (small, large):
        with pytest.raises(VolumeMissing, match="does not answer"):
            incoming.finish()
        incoming.abandon()
    with pytest.raises(VolumeMissing, match="does not answer"):
        hasty.begin()


def test_a_folder_that_cannot_be_listed_is_no_empty_one(volume: ShareVolume, share: Share) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    shutil.rmtree(share.server / "objects")
    (share.server / "objects").symlink_to("objects")  # listing it fails, for root too
    with pytest.raises(VolumeFailed):
        list(volume.walk())


def test_nothing_is_held_open_on_the_share(volume: ShareVolume, share: Share) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    volume.read_start(path, 10)
    wait_until(
        lambda: not any(str(share.folder) in name for each in share_processes(share.folder) for name in _files(each))
    )


def _files(process: Path) -> list[str]:
    return [str(fd.readlink()) for fd in (process / "fd").iterdir()]


# --- a share that hangs ----------------------------------------------------------------------------------------------


def test_a_share_that_hangs_is_missing_until_it_answers(
    hasty: ShareVolume, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_pool, "BACK_OFF_S", (0.2, 0.5))
    path = new_path()
    hasty.put(path, [CONTENT], len(CONTENT))
    share.hang()
    failures: list[PacsError] = []

    def ask() -> None:
        with pytest.raises(VolumeMissing) as caught:
            hasty.digest_on_disk(path)
        failures.append(caught.value)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(failures) == 20 and any("does not answer" in str(each) for each in failures)
    # Processes that SIGKILL does not end were left behind, and no more are started than may be.
    for _ in range(100):
        with pytest.raises(VolumeMissing, match="does not answer"):
            hasty.require_present()
    most = share_pool.PROCESSES_MAX + share_pool.LEFT_BEHIND_MAX
    assert 0 < pool_of(hasty).left_behind() <= most
    assert len(share_processes(share.folder)) <= most
    share.wake()
    wait_until(lambda: _is_present(hasty))
    assert hasty.digest_on_disk(path) == SHA256
    wait_until(lambda: pool_of(hasty).left_behind() == 0)


def _is_present(volume: ShareVolume) -> bool:
    try:
        volume.require_present()
    except VolumeMissing:
        return False
    return True


def test_a_hung_share_is_given_up_within_its_time_and_others_go_on(
    hasty: ShareVolume, share: Share, tmp_path: Path
) -> None:
    """A put hangs; meanwhile a hasty on a disk works, and once the share is known to hang nobody waits for it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    create_identity(disk, ("tier1",), APPLIANCE_ID)
    local = LocalVolume(disk, "tier1")
    share.hang()
    failed: list[BaseException] = []

    def put() -> None:
        try:
            hasty.put(new_path(), [CONTENT] * 20, 20 * len(CONTENT))
        except BaseException as error:
            failed.append(error)

    hanging = threading.Thread(target=put)
    hanging.start()
    puts = 0
    while hanging.is_alive():  # it takes the share's time limit, and the disk is used all the while
        local.put(new_path(), [CONTENT], len(CONTENT))
        puts += 1
    assert puts > 0 and isinstance(failed[0], VolumeMissing)
    assert not local_files_left(local)
    before = time.monotonic()
    with pytest.raises(VolumeMissing):
        hasty.put(new_path(), [CONTENT], len(CONTENT))
    with pytest.raises(VolumeMissing):
        open_volume("smb", str(share.folder), "tier3", OPTIONS, tmp_path)
    assert time.monotonic() - before < 2 * OPTIONS["timeout_s"]


def local_files_left(volume: LocalVolume) -> list[str]:
    return [each.path for each in volume.walk() if each.path.startswith("incoming/")]


def test_a_server_that_is_cut_off_is_not_the_files_fault(volume: ShareVolume, share: Share) -> None:
    """Calls fail at once, as on a mount that was made soft: the copies are as good as they were."""
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    volume.read_start(path, 10)
    share.upper.kill()
    share.upper.wait()
    for read in (volume.open, volume.digest_on_disk, volume.size_of, volume.has):
        with pytest.raises(VolumeMissing):
            read(path)
    with pytest.raises(VolumeMissing):
        volume.put(new_path(), [CONTENT], len(CONTENT))


def test_a_process_that_dies_is_replaced(volume: ShareVolume, share: Share) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    for process in share_processes(share.folder):
        os.kill(int(process.name), signal.SIGKILL)
    with pytest.raises(match="started again"):
        for _ in range(10):
            volume.size_of(path)
    wait_until(lambda: _works(volume, path))


def _works(volume: ShareVolume, path: str) -> bool:
    try:
        return volume.size_of(path) == len(CONTENT)
    except VolumeMissing:
        return False


def test_processes_end_with_their_service(share: Share) -> None:
    patient = {**OPTIONS, "timeout_s": 60}
    script = (
        "import os, sys; from pacs.storage.share import ShareVolume;"
        f" volume = ShareVolume('smb', {str(share.folder)!r}, 'tier3', {patient!r}); volume.room();"
        " print(volume.volume_id, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -9 and uuid.UUID(ended.stdout.strip())
    mine = {each.popen.pid for each in share_pool._pools[str(share.folder)]._idle}
    wait_until(lambda: {int(each.name) for each in share_processes(share.folder)} <= mine)


# --- somebody else's, or nobody's ------------------------------------------------------------------------------------


def test_another_appliances_share(volume: ShareVolume, share: Share) -> None:
    path = new_path()
    volume.put(path, [CONTENT], len(CONTENT))
    (share.server / "volume.json").unlink()
    for write in (lambda: volume.put(new_path(), [CONTENT], len(CONTENT)), lambda: volume.remove(path)):
        with pytest.raises(VolumeMissing, match="There is no volume"):
            write()
    create_identity(share.server, ("tier3",))
    for write in (
        lambda: volume.put(new_path(), [CONTENT], len(CONTENT)),
        lambda: volume.remove(path),
        lambda: volume.quarantine(path),
        lambda: volume.replace_small("journal/x", b"x"),
        volume.require_present,
        volume.require_writable,
    ):
        with pytest.raises(ForeignVolume, match="Another volume"):
            write()
    assert [each.path for each in LocalVolume(share.server, "tier3").walk()] == [path]


def test_a_share_is_made_a_volume_once(share: Share, tmp_path: Path) -> None:
    place = Place("smb", str(share.folder), OPTIONS)
    assert place.identity() == read_identity(share.server)
    with pytest.raises(VolumeFailed):
        place.make("tier2", APPLIANCE_ID)
    with pytest.raises(VolumeMissing, match="for tier3, not for tier2"):
        place.open("tier2")
    place.unmake()
    assert place.identity() is None and list(share.server.iterdir()) == []
    (share.server / "letters").mkdir()
    with pytest.raises(UsageError, match="letters"):
        place.identity()


def test_a_share_that_is_not_mounted_is_missing_before_a_byte_is_written(tmp_path: Path) -> None:
    for kind in ("nfs", "smb"):
        with pytest.raises(VolumeMissing, match="share is mounted"):
            Place(kind, str(tmp_path)).make("tier3", APPLIANCE_ID)
    assert list(tmp_path.iterdir()) == []


def test_options_that_mean_nothing(share: Share) -> None:
    for options in ({"timeout": 3}, {"timeout_s": "3"}, {"timeout_s": 0}, {"any_file_system": 1}):
        with pytest.raises(SettingsError, match="no option"):
            ShareVolume("nfs", str(share.folder), "tier3", options)
